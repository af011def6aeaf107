"""Advisories, and the dead letters and other messages that are made from them."""

from datetime import UTC, datetime, timedelta

import pytest

from sahool_dlq.bridge.advisory import Advisory, dead_letter_of, nanoseconds, read_advisory
from sahool_dlq.bridge.late import cases_of
from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.headers import Redrive
from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.jetstream.acks import ack_subjects, is_ack
from sahool_dlq.jetstream.stored import StoredMessage
from sahool_dlq.jetstream.streams import REMOVED_REASONS

AT = datetime(2026, 11, 29, 8, 0, 0, 123456, tzinfo=UTC)
ROOT, KNOWN_AS = ids.failure_id("X", 7, 1, "c"), ids.redrive_id("any", 1)
REDRIVE = {
    "Dlq-Redrive-Of": ROOT,
    "Dlq-Redrive-Id": ids.redrive_id(ROOT, 2),
    "Dlq-Redrive-Attempt": "2",
    "Dlq-Redrive-Token": KNOWN_AS,
}
CREATED = AT - timedelta(days=3)
EVENT = StoredMessage("x.a", 7, nanoseconds(AT) - 1, {}, b"{}")


def advisory(kind: str = "terminated", at: datetime = AT, reason: str = "") -> Advisory:
    body = (
        f'{{"type": "io.nats.jetstream.advisory.v1.{kind}", "stream": "X", "consumer": "c",'
        f' "stream_seq": 7, "deliveries": 2, "timestamp": "{at.isoformat()}",'
        f' "reason": "{reason}"}}'
    )
    return read_advisory(body.encode())


@pytest.mark.parametrize("name", ["a b", "a.b", "*", "x/y", "n" * 256, "\\u0000"])
@pytest.mark.parametrize("key", ["stream", "consumer"])
def test_an_advisory_of_what_can_not_be_is_none(key: str, name: str) -> None:
    body = (
        '{"type": "io.nats.jetstream.advisory.v1.terminated", "stream": "X", "consumer": "c",'
        ' "stream_seq": 7, "deliveries": 2, "timestamp": "2026-11-29T08:00:00Z"}'
    )
    assert read_advisory(body.encode()).stream == "X"
    old = '"X"' if key == "stream" else '"c"'
    with pytest.raises(ValueError, match="not valid names"):
        read_advisory(body.replace(old, f'"{name}"').encode())


@pytest.mark.parametrize("reason", REMOVED_REASONS)
def test_only_a_termination_in_the_servers_words_of_an_event_that_is_gone_is_a_removal(
    reason: str,
) -> None:
    assert advisory(reason=reason).is_removal(None)
    assert not advisory(reason=reason).is_removal(EVENT)
    assert not advisory(reason=f"{reason}!").is_removal(None)
    assert not advisory("max_deliver", reason=reason).is_removal(None)


def test_whatever_is_said_of_an_event_that_is_gone_is_one_failure() -> None:
    later = AT + timedelta(hours=2)
    said = (advisory(), advisory(at=later, reason="no price"), advisory("max_deliver", later))
    letters = [dead_letter_of(each, None, "c", {}, CREATED)[0] for each in said]
    expected = ids.failure_id("X", 7, nanoseconds(CREATED), "c")
    assert {letter["failure_id"] for letter in letters} == {expected}
    anew = dead_letter_of(advisory(), None, "c", {}, CREATED + timedelta(days=1))[0]
    assert anew["failure_id"] != expected
    nothing_known = dead_letter_of(advisory(), None, "c")[0]
    assert nothing_known["original_timestamp_ns"] == nanoseconds(AT)


ACKED = [
    ("$JS.ACK.X.c.2.7.3.1700000000000000000.0", True),
    ("$JS.ACK._.HASH.X.c.2.7.3.1700000000000000000.0", True),
    ("$JS.ACK.hub.HASH.X.c.2.7.3.1700000000000000000.0.token", True),
    ("$JS.ACK.X.c.2.8.3.1700000000000000000.0", False),  # another event
    ("$JS.ACK.X.c.7.8.7.7.7", False),
    ("$JS.ACK.X.d.2.7.3.1700000000000000000.0", False),  # another consumer
    ("$JS.ACK._.HASH.X.c.7.8.7.7.7.token", False),
]


@pytest.mark.parametrize(("subject", "is_heard"), ACKED)
def test_the_acknowledgement_of_one_event_is_listened_for_in_both_forms(
    subject: str, is_heard: bool
) -> None:
    assert any(matches(each, subject) for each in ack_subjects("X", "c", 7)) is is_heard


@pytest.mark.parametrize(
    ("answer", "says_handled"),
    [
        *((b"", True), (b"+ACK", True), (b"+OK", True), (b'+NXT {"batch": 2}', True)),
        *((b"-NAK", False), (b'-NAK {"delay": 5}', False), (b"+WPI", False)),
        *((b"+TERM", False), (b"+TERM +ACK", False), (b"+ACKED", False)),
    ],
)
def test_what_counts_as_an_acknowledgement(answer: bytes, says_handled: bool) -> None:
    assert is_ack(answer) is says_handled


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ["f"]),
        (REDRIVE, ["f", ROOT]),
        ({**REDRIVE, "Dlq-Redrive-For": "X/c"}, ["f", ROOT]),
        ({**REDRIVE, "Dlq-Redrive-For": "X/d"}, ["f"]),
        ({**REDRIVE, "Dlq-Redrive-Instead-Of": "X/d"}, ["f"]),
    ],
)
def test_a_redrive_that_was_acknowledged_late_is_about_its_root_too(
    headers: dict[str, str], expected: list[str]
) -> None:
    fields = {"failure_id": "f", "original_stream": "X", "consumer_name": "c"}
    cases = cases_of({**fields, "original_headers": headers})
    assert list(cases) == expected
    assert cases.get(ROOT) in (None, Redrive(ROOT, KNOWN_AS, 2))
