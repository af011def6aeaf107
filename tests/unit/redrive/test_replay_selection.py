"""Which events a person selects for a replay, and how the log names a replayed event."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sahool_dlq.deadletter.case_events import CaseEvent, decode_case_event
from sahool_dlq.deadletter.cases import Case, is_failed_replay, is_founded
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.deadletter.ids import failure_id
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.replays import ReplayedEvent, replayed_event
from sahool_dlq.errors import QueryError, RedriveError
from sahool_dlq.redrive.replay.selection import ReplaySelection, stream_position

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID, TOKEN = failure_id("a", 1, 1, "x"), failure_id("a", 2, 2, "x")
REPLAYED = ReplayedEvent(ID, failure_id("EVENTS", 4111111111111111, 3, "c"), "EVENTS/c", "EVENTS",
                         4111111111111111, None)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seq:120000", 120_000),
        (" SEQ: 7 ", 7),
        ("24h", NOW - timedelta(days=1)),
        ("2026-02-28", datetime(2026, 2, 28, tzinfo=UTC)),
        ("20260228", datetime(2026, 2, 28, tzinfo=UTC)),  # a date, as for every other verb
    ],
)
def test_a_position_is_a_time_or_a_sequence(text: str, expected: datetime | int) -> None:
    assert stream_position(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "seq:", "seq:-1", "#7", "soon", "seq:" + "9" * 19])
def test_anything_else_is_refused_with_what_it_may_be(text: str) -> None:
    with pytest.raises(RedriveError, match=r"24h.*or seq:120000"):
        stream_position(text, NOW)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "Say what to replay"),
        ({"since": 1, "consumer": " "}, "An empty consumer"),
        ({"subject": ""}, "An empty subject"),
        ({"since": 1, "where": ""}, "An empty where"),
        ({"subject": "a..b"}, "not a subject or filter"),
    ],
)
def test_a_selection_of_everything_or_nothing_is_refused(
    given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(RedriveError, match=expected):
        ReplaySelection(**{"consumer": "c"} | given)


@pytest.mark.parametrize("name", ["error_type", "status", "service", "dlq_timestamp"])
def test_a_condition_knows_events_and_not_failures(name: str) -> None:
    with pytest.raises(QueryError, match=rf"no column '{name}': use subject, .*farmer_id, data\.…"):
        ReplaySelection("c", where=f"{name} = 'x'").condition()


def test_since_is_within_and_until_is_not() -> None:
    by_time = ReplaySelection("c", since=NOW, until=NOW + timedelta(hours=1))
    assert by_time.is_before(1, NOW - timedelta(microseconds=1))
    assert not by_time.is_before(1, NOW)
    assert not by_time.is_after(9, NOW + timedelta(minutes=59))
    assert by_time.is_after(9, NOW + timedelta(hours=1))
    by_sequence = ReplaySelection("c", since=5, until=7)
    assert [n for n in range(10) if not by_sequence.is_before(n, NOW)] == [5, 6, 7, 8, 9]
    assert [n for n in range(10) if not by_sequence.is_after(n, NOW)] == list(range(7))


def test_a_selection_is_stored_as_given_and_masked() -> None:
    given = ReplaySelection("c", since=NOW, until=9, subject="a.b", where="event_id = 'e'")
    assert json.loads(json.dumps(given.as_json())) == {
        "consumer": "c",
        "since": "2026-03-01T12:00:00+00:00",
        "until": 9,
        "subject": "a.b",
        "where": "event_id = 'e'",
        "limit": 10_000,
    }
    assert given.masked(lambda _: "***").where == "***"


def announced(**changes: Any) -> CaseEvent:
    given: dict[str, Any] = {
        "failure_id": ID,
        "at": NOW,
        "actor": "ana",
        "redrive_id": TOKEN,
        "attempt": 1,
        "trigger": "replay",
        "consumer": REPLAYED.consumer,
        "event": REPLAYED.as_json(),
    }
    nanoseconds = int(NOW.timestamp()) * 10**9
    data = encode_case_event(**given | changes)
    message = LogMessage("sahool.redrive.published", 1, nanoseconds, data)
    return decode_case_event(message, "epoch")


def test_the_log_says_which_event_was_replayed_also_in_its_redacted_copy() -> None:
    event = announced()
    assert replayed_event(event) == REPLAYED
    event.body = Redactor().redact_json(event.body)  # as the lake has it
    assert replayed_event(event) == REPLAYED


@pytest.mark.parametrize(
    "changes",
    [
        {"trigger": "manual"},
        {"event": {}},
        {"event": REPLAYED.as_json() | {"replay_of": "x"}},
        {"event": REPLAYED.as_json() | {"original_sequence": "7"}},
        {"consumer": None},
        {"attempt": None},
    ],
)
def test_a_message_without_the_event_announces_no_replay(changes: dict[str, Any]) -> None:
    assert replayed_event(announced(**changes)) is None


def test_a_replay_only_says_who_may_report_its_outcome() -> None:
    replay = Case(ID, consumer="EVENTS/c", announced={TOKEN: 1}, is_replay=True)
    assert is_founded(replay, TOKEN, 1)
    assert not is_founded(replay, ID, 1)
    assert is_failed_replay(replay, "EVENTS/c")
    assert not is_failed_replay(replay, "EVENTS/other")
    assert not is_failed_replay(Case(ID, consumer="EVENTS/c"), "EVENTS/c")
