"""Raw events from a server that does not answer, or answers with another message."""

from datetime import UTC, datetime
from typing import Any, cast

import nats.errors
import pytest

from sahool_dlq.deadletter import ids
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.stored import StoredMessage
from sahool_dlq.redrive.origin import ExpiredError
from sahool_dlq.reproduce import raw
from sahool_dlq.reproduce.raw import Missing, Place, RawEvent, RawEvents

AT_NS = 1_772_359_100_000_000_000
FAILURE = ids.failure_id("EVENTS", 7, AT_NS, "ndvi")
PLACE = Place(FAILURE, "EVENTS", 7, "ndvi", 5, datetime(2026, 3, 1, tzinfo=UTC))
STORED = StoredMessage("sahool.analysis.ndvi", 7, AT_NS, {"a": "b"}, b"body")


def events(monkeypatch: pytest.MonkeyPatch, answer: StoredMessage | Exception | None) -> RawEvents:
    async def stored(*_: object) -> StoredMessage | None:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def no_letter(*_: object) -> None:
        raise ExpiredError("the stream no longer has its dead letter")

    monkeypatch.setattr(raw, "stored_message", stored)
    monkeypatch.setattr(raw, "stored_dead_letter", no_letter)
    nothing = cast("Any", None)
    return RawEvents(nothing, nothing, nothing)


@pytest.mark.parametrize(
    "silence", [TimeoutError(), nats.errors.TimeoutError(), nats.errors.Error()]
)
async def test_silence_is_no_missing_event(
    monkeypatch: pytest.MonkeyPatch, silence: Exception
) -> None:
    with pytest.raises(ServerUnavailableError, match="try again"):
        await events(monkeypatch, silence).read([PLACE])


async def test_the_message_of_that_time_is_the_event_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [found] = await events(monkeypatch, STORED).read([PLACE])
    assert isinstance(found, RawEvent)
    assert (found.body, found.headers, found.source) == (b"body", {"a": "b"}, "stream")
    for other in (STORED._replace(timestamp_ns=AT_NS + 1), STORED._replace(sequence=8), None):
        place = PLACE if other is None or other.sequence == 7 else PLACE._replace(sequence=8)
        [missing] = await events(monkeypatch, other).read([place])
        assert missing == Missing(FAILURE, "the stream no longer has its dead letter")


@pytest.mark.parametrize(
    "changes", [{"stream": None}, {"sequence": None}, {"consumer": None}, {"stream": "a.b >"}]
)
async def test_what_says_no_place_asks_no_stream(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    asked = events(monkeypatch, AssertionError("it was asked"))
    [missing] = await asked.read([PLACE._replace(**changes)])
    assert isinstance(missing, Missing)
