"""`decode_case_event`: reads outcomes and decisions, and sets others aside with a reason."""

import json
import math
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.case_events import (
    KINDS,
    REDRIVE_KINDS,
    TRIAGE_KINDS,
    CaseEvent,
    decode_case_event,
)
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.record import LONG_TEXT_LIMIT
from sahool_dlq.deadletter.subjects import Subjects
from support.letters import EPOCH, PUBLISHED_AT, PUBLISHED_NS, SEQUENCE

ROOT = ids.failure_id("SAHOOL_EVENTS", 1, 1, "ndvi")
AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


def read(body: bytes | dict[str, Any], subject: str = "sahool.redrive.succeeded") -> CaseEvent:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_case_event(LogMessage(subject, SEQUENCE, PUBLISHED_NS, data), EPOCH)


def outcome(**changes: Any) -> dict[str, Any]:
    return {
        "failure_id": ROOT,
        "redrive_id": ids.redrive_id(ROOT, 2),
        "attempt": 2,
        "at": AT.isoformat(),
    } | changes


def assert_storable(event: CaseEvent) -> None:
    for value in asdict(event).values():
        if isinstance(value, str):
            value.encode()
            assert "\0" not in value
            assert len(value) <= LONG_TEXT_LIMIT
        if isinstance(value, datetime):
            assert value.utcoffset() is not None
    assert event.attempt is None or 0 < event.attempt < 2**31 - 1
    json.loads(event.body, parse_constant=pytest.fail)


@pytest.mark.parametrize("kind", REDRIVE_KINDS)
def test_what_a_redrive_tells_is_read_whole(kind: str) -> None:
    body = encode_case_event(
        failure_id=ROOT,
        redrive_id=ids.redrive_id(ROOT, 2),
        batch_id="b1",
        attempt=2,
        trigger="manual",
        consumer="SAHOOL_EVENTS/ndvi",
        actor="ada",
        reason="fixed — try again",
        at=AT,
    )
    assert read(body, Subjects().redrive(kind)) == CaseEvent(
        epoch=EPOCH,
        dlq_sequence=SEQUENCE,
        published_at=PUBLISHED_AT,
        subject=f"sahool.redrive.{kind}",
        kind=f"redrive.{kind}",
        failure_id=ROOT,
        redrive_id=ids.redrive_id(ROOT, 2),
        batch_id="b1",
        attempt=2,
        trigger="manual",
        consumer="SAHOOL_EVENTS/ndvi",
        actor="ada",
        reason="fixed — try again",
        at=AT,
        body=body.decode(),
    )


@pytest.mark.parametrize("kind", TRIAGE_KINDS)
def test_a_decision_needs_no_redrive(kind: str) -> None:
    body = encode_case_event(failure_id=ROOT, actor="ada", at=AT)
    event = read(body, Subjects("farm").triage(kind))
    assert (event.kind, event.failure_id, event.actor) == (f"triage.{kind}", ROOT, "ada")
    assert (event.attempt, event.reason, event.parse_error) == (None, None, None)


def test_an_event_without_a_time_happened_when_it_was_published() -> None:
    event = read({"failure_id": ROOT}, "sahool.triage.resolved")
    assert (event.at, event.parse_error) == (PUBLISHED_AT, None)


@pytest.mark.parametrize(
    "subject",
    [
        "sahool.redrive.triage.resolved",
        "sahool.triage.redrive.succeeded",
        "sahool.redrive.resolved",
        "sahool.triage.succeeded",
        "sahool.triage.forgiven",
        "sahool.redrive.a.b.c",
        "sahool.triage.\ufffd" + "x" * 5_000,
    ],
)
def test_only_the_known_subjects_count(subject: str) -> None:
    event = read(outcome(), subject)
    assert event.kind not in KINDS
    assert (event.parse_error or "").startswith("unknown subject sahool.")
    assert_storable(event)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON: nested deeper"),
        (b"[1]", "missing failure_id"),
        (b"NaN", "missing failure_id"),
        ({}, "missing failure_id"),
        ({"failure_id": "x"}, "missing failure_id"),
        ({"failure_id": 5}, "missing failure_id"),
        ({"failure_id": ROOT.upper()}, "missing failure_id"),
        (outcome(redrive_id=None), "name no redrive"),
        (outcome(redrive_id="x"), "name no redrive"),
        (outcome(redrive_id=ids.redrive_id(ROOT, 3).upper()), "name no redrive"),
        (outcome(attempt=None), "name no redrive"),
        (outcome(attempt=0), "name no redrive"),
        (outcome(attempt=-1), "name no redrive"),
        (outcome(attempt="2"), "name no redrive"),
        (outcome(attempt=True), "name no redrive"),
        (outcome(attempt=2**31 - 1), "name no redrive"),
        (outcome(at="soon"), "at is not a time"),
        (outcome(at="9999-12-31T23:59:59-14:00"), "at is not a time"),
        (outcome(at=None), "at is not a time"),
        (outcome(at={"a": "\ud800"}), "at is not a time"),
    ],
)
def test_what_can_not_be_used_says_why(body: bytes | dict[str, Any], says: str) -> None:
    event = read(body)
    assert says in (event.parse_error or "")
    assert_storable(event)


def test_texts_are_repaired_and_cut() -> None:
    event = read(outcome(reason="\0\ud800" + "x" * 5_000, actor=7, extra=math.nan))
    assert event.reason == "\ufffd\ufffd" + "x" * 998
    assert event.actor is None
    assert json.loads(event.body)["extra"] == "NaN"
    assert event.parse_error is None


def test_a_body_beyond_the_limit_is_cut() -> None:
    event = read(outcome(extra="x" * 1_100_000))
    assert "characters" in json.loads(event.body)["cut"]
    assert event.parse_error is None


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)


@given(
    st.binary(max_size=80)
    | st.dictionaries(st.sampled_from(sorted(outcome())), VALUES).map(
        lambda changes: json.dumps(outcome(**changes)).encode()
    ),
    st.sampled_from([*(f"sahool.{kind}" for kind in KINDS), "sahool.redrive.x.y", "sahool.triage"]),
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_become_one_storable_event(data: bytes, subject: str) -> None:
    assert_storable(read(data, subject))


def test_a_request_says_when_it_is_due() -> None:
    body = encode_case_event(
        failure_id=ROOT,
        redrive_id=ids.redrive_id(ROOT, 1),
        attempt=1,
        at=AT,
        actor="monitor",
        not_before=AT + timedelta(hours=24),
    )
    event = read(body, Subjects().redrive("requested"))
    assert (event.kind, event.not_before) == ("redrive.requested", AT + timedelta(hours=24))
    assert event.parse_error is None
    broken = json.loads(body) | {"not_before": "tomorrow"}
    assert "not_before is not a time" in str(
        read(broken, Subjects().redrive("requested")).parse_error
    )
