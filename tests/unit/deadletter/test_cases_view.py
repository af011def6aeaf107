"""`sql/views/cases.sql` and the fold in `deadletter/cases.py` agree, step by step."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.cases import (
    Case,
    apply_dead_letter,
    apply_event,
    apply_repeat,
    case_of,
)
from sahool_dlq.deadletter.record import DeadLetter
from support.lake_log import ADDRESS, EPOCH, Log, before, failure

COLUMNS = ("status", "redrive_count", "cause")


@pytest.fixture
def log(log_with_views: Log) -> Log:
    log_with_views.clear()
    return log_with_views


def cases(log: Log, *columns: str) -> dict[str, tuple[Any, ...]]:
    """The chosen columns of the current state of every case, by failure_id."""
    rows = log.rows("SELECT * FROM cases ORDER BY opening")
    assert len({(row["failure_id"], row["opening"]) for row in rows}) == len(rows)
    return {row["failure_id"]: tuple(row[name] for name in columns or COLUMNS) for row in rows}


def redriven(log: Log, name: str, attempts: int, **columns: Any) -> None:
    """The failure `name`, and this number of redrives of it that failed again."""
    log.dead_letter(name)
    for attempt in range(1, attempts + 1):
        log.event("redrive.published", name, attempt=attempt, **columns)
        log.dead_letter(f"{name}{attempt}", root=name, redrive_attempt=attempt)


def test_a_dead_letter_opens_a_pending_case(log: Log) -> None:
    opened_at = before(hours=3)
    a = log.dead_letter("a", dlq_timestamp=opened_at, service="soil", tenant_id=None)
    (row,) = log.rows("SELECT * EXCLUDE log_position FROM cases")
    assert row == {
        "failure_id": a,
        "opening": 1,
        "dlq_date": before(days=2).date(),
        "service": "soil",
        "tenant_id": None,
        "field_id": None,
        "consumer_name": "ndvi",
        "consumer_version": None,
        "error_type": "ValueError",
        "error_class": "ValueError",
        "group_id": "g1",
        "parent_id": "p1",
        "cause_id": "c1",
        "template": "boom",
        "frames": "app:handle",
        "event_type": "ndvi_computed",
        "original_stream": "SAHOOL_EVENTS",
        "original_sequence": None,
        "first_attempt_at": opened_at,
        "opened_at": opened_at,
        "published_at": before(days=2) + timedelta(seconds=1),
        "status": "pending",
        "is_open": True,
        "redrive_count": 0,
        "not_before": None,
        "closed_at": None,
        "cause": "open",
        "dlq_sequence": 1,
        "epoch": EPOCH,
    }


def test_a_repeat_of_a_dead_letter_is_the_same_case(log: Log) -> None:
    began_at = before(days=3)
    a = log.dead_letter("a", error_class="TimeoutError", first_attempt_at=began_at)
    log.event("triage.resolved", "a")
    log.dead_letter("a", error_class="Repeated", first_attempt_at=began_at)
    assert cases(log, "status", "error_class") == {a: ("resolved", "TimeoutError")}


def test_a_repeat_of_a_dead_letter_whose_consumers_clock_is_ahead_is_the_same_case(
    log: Log,
) -> None:
    a = log.dead_letter("a", first_attempt_at=before(days=-1))
    log.event("triage.resolved", "a")
    log.dead_letter("a", first_attempt_at=before(days=-1))
    assert cases(log, "status", "opening") == {a: ("resolved", 1)}


@pytest.mark.parametrize(("kind", "cause"), [("resolved", "manual"), ("discarded", "discarded")])
def test_a_failure_that_began_after_its_case_was_closed_reopens_it(
    log: Log, kind: str, cause: str
) -> None:
    redriven(log, "a", 2)
    log.event(f"triage.{kind}", "a", at=before(days=1))
    log.dead_letter("a", error_class="Later", dlq_timestamp=before(hours=5))
    log.event("redrive.published", "a", attempt=1001)
    log.event("redrive.outcome_unknown", "a", attempt=1001)
    rows = log.rows("SELECT * FROM cases ORDER BY opening")
    columns = ("opening", "status", "redrive_count", "cause", "closed_at", "error_class")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        (1, "reopened", 2, cause, before(days=1), "ValueError"),
        (2, "pending", 1, "open", None, "Later"),
    ]


def test_a_reopened_case_can_be_closed_and_reopened_again(log: Log) -> None:
    log.dead_letter("a")
    log.event("redrive.succeeded", "a", attempt=1)
    log.dead_letter("a")
    log.event("redrive.published", "a", attempt=1001, trigger="manual")
    log.event("redrive.succeeded", "a", attempt=1001)
    log.dead_letter("a")
    log.event("redrive.succeeded", "a", attempt=1)  # late: of an earlier opening
    log.event("redrive.succeeded", "a", attempt=1001)
    rows = log.rows("SELECT opening, status, cause FROM cases ORDER BY opening")
    assert [tuple(row.values()) for row in rows] == [
        (1, "reopened", "automatic_redrive"),
        (2, "reopened", "manual_redrive"),
        (3, "pending", "open"),
    ]


def test_the_first_row_is_that_of_the_first_epoch_not_of_the_lowest_sequence(log: Log) -> None:
    log.sequence = 500
    a = log.dead_letter("a", service="first")
    log.sequence = 0
    later = {"epoch": "SAHOOL_DLQ|2", "published_at": before(days=1)}
    log.dead_letter("a", service="again", **later)
    log.event("triage.parked", "a", **later)
    assert cases(log, "service", "status") == {a: ("first", "parked")}


def test_events_of_a_later_epoch_come_after_those_of_an_earlier(log: Log) -> None:
    log.sequence = 500
    a = log.dead_letter("a")
    log.event("triage.parked", "a")
    log.sequence = 0
    log.event("triage.unparked", "a", epoch="SAHOOL_DLQ|2", published_at=before(days=1))
    assert cases(log) == {a: ("pending", 0, "open")}


def test_a_published_redrive_makes_a_case_retried(log: Log) -> None:
    a = log.dead_letter("a")
    log.event("redrive.published", "a", attempt=1)
    assert cases(log) == {a: ("retried", 0, "open")}


def test_a_published_redrive_that_already_ended_changes_nothing(log: Log) -> None:
    redriven(log, "a", 1)
    log.event("redrive.published", "a", attempt=1)
    assert cases(log) == {failure("a"): ("pending", 1, "open")}


def test_a_redrive_that_failed_again_is_no_case_and_counts_for_its_root(log: Log) -> None:
    redriven(log, "a", 2)
    assert cases(log) == {failure("a"): ("pending", 2, "open")}


def test_a_case_is_parked_at_the_cap(log: Log) -> None:
    redriven(log, "a", 3)
    assert cases(log) == {failure("a"): ("parked", 3, "open")}


def test_the_cap_is_what_the_redrive_that_failed_was_published_with(log: Log) -> None:
    redriven(log, "a", 2)
    log.event("redrive.published", "a", attempt=3, redrive_cap=5)
    log.dead_letter("a3", root="a", redrive_attempt=3)
    assert cases(log) == {failure("a"): ("pending", 3, "open")}
    log.event("redrive.published", "a", attempt=4, redrive_cap=2)
    log.event("redrive.outcome_unknown", "a", attempt=4)
    assert cases(log) == {failure("a"): ("parked", 4, "open")}


def test_a_parked_case_stays_parked_when_its_redrive_fails_again(log: Log) -> None:
    log.dead_letter("a")
    log.event("redrive.published", "a", attempt=1)
    log.event("triage.parked", "a")
    log.dead_letter("a1", root="a", redrive_attempt=1)
    assert cases(log) == {failure("a"): ("parked", 1, "open")}


def test_a_parked_case_can_be_redriven(log: Log) -> None:
    redriven(log, "a", 3)
    log.event("redrive.published", "a", attempt=4, trigger="manual")
    assert cases(log) == {failure("a"): ("retried", 3, "open")}


@pytest.mark.parametrize("trigger", ["automatic", "manual"])
def test_a_redrive_that_succeeds_resolves_the_case_by_its_trigger(log: Log, trigger: str) -> None:
    redriven(log, "a", 1, trigger="manual" if trigger == "automatic" else "automatic")
    log.event("redrive.published", "a", attempt=2, trigger=trigger)
    log.event("redrive.succeeded", "a", attempt=2, at=before(hours=5))
    assert cases(log, *COLUMNS, "closed_at") == {
        failure("a"): ("resolved", 1, f"{trigger}_redrive", before(hours=5))
    }


@pytest.mark.parametrize("status", ["pending", "parked"])
def test_a_success_counts_whatever_is_open(log: Log, status: str) -> None:
    a = log.dead_letter("a")
    if status == "parked":
        log.event("triage.parked", "a")
    log.event("redrive.succeeded", "a", attempt=1)
    assert cases(log) == {a: ("resolved", 0, "automatic_redrive")}


def test_a_success_of_another_consumer_does_not_count(log: Log) -> None:
    a = log.dead_letter("a")
    log.event("redrive.published", "a", attempt=1)
    log.event("redrive.succeeded", "a", attempt=1, consumer="SAHOOL_EVENTS/other")
    assert cases(log) == {a: ("retried", 0, "open")}


def test_a_success_of_anybody_counts_where_the_failing_consumer_is_unknown(log: Log) -> None:
    a = log.dead_letter("a", consumer_name=None)
    log.event("redrive.succeeded", "a", attempt=1, consumer=None)
    assert cases(log) == {a: ("resolved", 0, "automatic_redrive")}


@pytest.mark.parametrize("kind", ["unroutable", "refused", "expired", "too_late"])
def test_a_redrive_that_could_not_go_out_parks_the_case(log: Log, kind: str) -> None:
    a = log.dead_letter("a")
    log.event(f"redrive.{kind}", "a", attempt=1)
    assert cases(log) == {a: ("parked", 1, "open")}


@pytest.mark.parametrize(("attempt", "status"), [(1, "pending"), (3, "parked")])
def test_an_unknown_outcome_counts_as_a_redrive_without_success(
    log: Log, attempt: int, status: str
) -> None:
    a = log.dead_letter("a")
    log.event("redrive.published", "a", attempt=attempt)
    log.event("redrive.outcome_unknown", "a", attempt=attempt)
    assert cases(log) == {a: (status, attempt, "open")}


def test_an_unknown_outcome_counts_also_where_its_publish_was_not_seen(log: Log) -> None:
    a = log.dead_letter("a")
    log.event("redrive.outcome_unknown", "a", attempt=1)
    assert cases(log) == {a: ("pending", 1, "open")}


@pytest.mark.parametrize("kind", ["resolved", "discarded"])
def test_a_decision_closes_a_case_and_no_other_message_opens_it_again(log: Log, kind: str) -> None:
    a = log.dead_letter("a")
    log.event(f"triage.{kind}", "a", at=before(hours=1))
    log.event("triage.unparked", "a")
    log.event("redrive.published", "a", attempt=1)
    log.event("redrive.succeeded", "a", attempt=1)
    log.event("triage.discarded" if kind == "resolved" else "triage.resolved", "a")
    cause = "manual" if kind == "resolved" else "discarded"
    assert cases(log, *COLUMNS, "closed_at") == {a: (kind, 0, cause, before(hours=1))}


def test_parking_and_unparking(log: Log) -> None:
    for name in "abc":
        log.dead_letter(name)
    log.event("triage.parked", "a")
    log.event("triage.parked", "b")
    log.event("triage.unparked", "b")
    log.event("triage.unparked", "c")
    log.event("triage.alerted", "c")
    assert cases(log, "status") == {
        failure("a"): ("parked",),
        failure("b"): ("pending",),
        failure("c"): ("pending",),
    }


def test_a_redrive_of_a_discarded_case_that_fails_again_is_no_case(log: Log) -> None:
    log.dead_letter("a")
    log.event("triage.discarded", "a")
    log.dead_letter("a1", root="a", redrive_attempt=1)
    assert cases(log) == {failure("a"): ("discarded", 0, "discarded")}


def test_a_failure_of_a_redrive_of_a_resolved_case_is_a_case_of_its_own(log: Log) -> None:
    log.dead_letter("a")
    log.event("triage.resolved", "a")
    log.dead_letter("b", root="a", redrive_attempt=1)
    log.event("redrive.published", "b", attempt=1)
    log.dead_letter("c", root="b", redrive_attempt=1)
    assert cases(log) == {
        failure("a"): ("resolved", 0, "manual"),
        failure("b"): ("pending", 1, "open"),
    }


@pytest.mark.parametrize("root", ["never seen", "itself", "later"])
def test_a_failure_of_a_redrive_of_an_unknown_root_is_a_case_of_its_own(
    log: Log, root: str
) -> None:
    log.dead_letter("itself", root=root, redrive_attempt=1)
    log.dead_letter("later")
    assert cases(log) == {
        failure("itself"): ("pending", 0, "open"),
        failure("later"): ("pending", 0, "open"),
    }


def test_a_redrive_that_fails_in_another_consumer_is_a_case_of_its_own(log: Log) -> None:
    log.dead_letter("a")
    log.event("redrive.published", "a", attempt=1)
    log.dead_letter("b", root="a", redrive_attempt=1, consumer_name="other")
    assert cases(log) == {
        failure("a"): ("retried", 0, "open"),
        failure("b"): ("pending", 0, "open"),
    }


def test_events_that_could_not_be_read_or_came_too_early_change_nothing(log: Log) -> None:
    log.event("triage.resolved", "a")
    a = log.dead_letter("a")
    log.event("triage.discarded", "a", parse_error="at is not a time")
    log.event("triage.discarded", "a", failure_id=None)
    assert cases(log) == {a: ("pending", 0, "open")}


# The same, for any log: the view against the fold.

NAMES = st.sampled_from("abcd")
ATTEMPTS = st.one_of(st.none(), st.integers(1, 4))
CONSUMERS = st.sampled_from([ADDRESS, ADDRESS, ADDRESS, "SAHOOL_EVENTS/other", None])
KINDS = st.sampled_from(
    ["redrive.published"] * 3
    + [
        f"redrive.{kind}"
        for kind in ("succeeded", "unroutable", "expired", "too_late", "outcome_unknown")
    ]
    + [f"triage.{kind}" for kind in ("resolved", "discarded", "parked", "unparked", "alerted")]
)


@dataclass(frozen=True)
class Message:
    """A dead letter (kind is empty) or a case event."""

    name: str
    root: str | None = None
    kind: str = ""
    attempt: int | None = None
    trigger: str | None = None
    consumer: str | None = ADDRESS
    redrive_cap: int | None = None


MESSAGES = st.one_of(
    st.builds(
        Message, NAMES, root=st.one_of(st.none(), NAMES), attempt=ATTEMPTS, consumer=CONSUMERS
    ),
    st.builds(
        Message,
        NAMES,
        kind=KINDS,
        attempt=ATTEMPTS,
        trigger=st.sampled_from(["automatic", "manual", None]),
        consumer=CONSUMERS,
        redrive_cap=st.sampled_from([None, 1, 2, 4]),
    ),
)


def folded(messages: list[Message]) -> dict[str, tuple[Any, ...]]:
    """The drain's result for the messages: `COLUMNS` of every case."""
    found: dict[str, Case | None] = {}  # None: superseded
    for sequence, message in enumerate(messages, 1):
        at = before(days=2) + timedelta(seconds=sequence)
        place = {"epoch": EPOCH, "dlq_sequence": sequence, "published_at": at, "subject": ""}
        known = found.get(message.name)
        if message.kind:
            event = CaseEvent(
                **place,
                kind=message.kind,
                failure_id=failure(message.name),
                attempt=message.attempt,
                trigger=message.trigger,
                consumer=message.consumer,
                redrive_cap=message.redrive_cap,
                at=at,
                body="{}",
            )
            if known:
                found[message.name] = apply_event(known, event)
        else:
            letter = DeadLetter(
                **place,
                size_bytes=0,
                failure_id=failure(message.name),
                redrive_attempt=message.attempt,
                original_stream="SAHOOL_EVENTS",
                consumer_name=message.consumer and message.consumer.split("/")[1],
                first_attempt_at=at,
                last_attempt_at=at,
                dlq_timestamp=at,
                original_data="{}",
                envelope="canonical",
            )
            if message.name in found:
                found[message.name] = known and apply_repeat(known, letter)
                continue
            superseded, root = False, None
            if message.root:
                superseded, root = apply_dead_letter(found.get(message.root), letter)
            if root and message.root:
                found[message.root] = root
            found[message.name] = None if superseded else case_of(letter)
    return {
        failure(name): (
            case.status,
            case.redrive_count,
            case.resolution_cause or ("discarded" if case.status == "discarded" else "open"),
        )
        for name, case in found.items()
        if case
    }


@given(messages=st.lists(MESSAGES, max_size=25))
@settings(max_examples=40, deadline=None)
def test_the_view_agrees_with_the_fold(log_with_views: Log, messages: list[Message]) -> None:
    log = log_with_views
    log.clear()
    for message in messages:
        if message.kind:
            log.event(
                message.kind,
                message.name,
                attempt=message.attempt,
                trigger=message.trigger,
                consumer=message.consumer,
                redrive_cap=message.redrive_cap,
            )
        else:
            log.dead_letter(
                message.name,
                root=message.root,
                redrive_attempt=message.attempt,
                consumer_name=message.consumer and message.consumer.split("/")[1],
            )
    assert folded(messages) == cases(log)
