"""The life of a case: each message against each status, and the fold over a batch."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.case_events import KINDS, CaseEvent
from sahool_dlq.deadletter.cases import (
    CLOSED,
    OPEN,
    STATUSES,
    Case,
    apply_dead_letter,
    apply_event,
    apply_repeat,
    attempt_number,
    case_of,
    opening_and_nth,
)
from sahool_dlq.deadletter.record import DeadLetter
from sahool_dlq.stores.postgres.fold import Fold
from support.folding import cases_of, fold_all

ADDRESS = "SAHOOL_EVENTS/ndvi"
T0 = datetime(2026, 3, 1, tzinfo=UTC)
AT = T0 + timedelta(hours=1)
ROOT = ids.failure_id("SAHOOL_EVENTS", 1, 1, "ndvi")
FIRST = {ids.redrive_id(ROOT, 1): 1}
"""What the log announced: the first redrive."""
FORGED = str(uuid.UUID(int=7))
"""The id of a redrive that nobody announced."""


def letter(name: str = "root", attempt: int | None = None, **changes: Any) -> DeadLetter:
    """A failure of the consumer ADDRESS; with `attempt`, that redrive of ROOT failed again."""
    values: dict[str, Any] = {
        "epoch": "e",
        "dlq_sequence": 1,
        "published_at": T0,
        "subject": "",
        "size_bytes": 0,
        "failure_id": ROOT if name == "root" else ids.failure_id("SAHOOL_EVENTS", 2, 2, name),
        "original_stream": "SAHOOL_EVENTS",
        "consumer_name": "ndvi",
        "first_attempt_at": T0,
        "last_attempt_at": T0,
        "dlq_timestamp": T0,
        "original_data": "{}",
        "envelope": "canonical",
        "error_type": "ValueError",
    }
    if attempt is not None:
        values |= {"root_failure_id": ROOT, "redrive_attempt": attempt}
        values |= {"redrive_id": ids.redrive_id(ROOT, attempt)}
    return DeadLetter(**values | changes)


def event(kind: str, attempt: int | None = None, **changes: Any) -> CaseEvent:
    """An event about ROOT, reported by ADDRESS if it is an outcome."""
    values: dict[str, Any] = {
        "epoch": "e",
        "dlq_sequence": 2,
        "published_at": AT,
        "subject": "",
        "kind": kind,
        "failure_id": ROOT,
        "attempt": attempt,
        "at": AT,
        "body": "{}",
        "reason": f"because of {kind}",
    }
    if attempt is not None:
        values |= {"redrive_id": ids.redrive_id(ROOT, attempt), "consumer": ADDRESS}
    return CaseEvent(**values | changes)


def case(status: str = "pending", count: int = 0, **changes: Any) -> Case:
    return Case(ROOT, status, ADDRESS, count, **changes)


def after(before: Case, *messages: CaseEvent | DeadLetter) -> Case:
    """The case after these messages, one by one."""
    for message in messages:
        if isinstance(message, CaseEvent):
            before = apply_event(before, message)
        else:
            root = apply_dead_letter(before, message)[1]
            assert root is not None
            before = root
    return before


def test_a_dead_letter_opens_a_pending_case_of_its_consumer() -> None:
    assert case_of(letter()) == Case(ROOT, "pending", ADDRESS, first_attempt_at=T0)
    assert case_of(letter(consumer_name=None)).consumer is None
    assert case_of(letter(original_stream=None)).consumer is None


# (status before, redrives counted before, kind, attempt) -> (status, redrives counted) after
TABLE = {
    ("pending", 0, "redrive.published", 1): ("retried", 0),
    ("parked", 3, "redrive.published", 4): ("retried", 3),
    ("retried", 0, "redrive.published", 1): ("retried", 0),
    ("pending", 1, "redrive.published", 1): ("pending", 1),  # announced again, after it ended
    ("parked", 3, "redrive.published", 2): ("parked", 3),
    ("retried", 0, "redrive.succeeded", 1): ("resolved", 0),
    ("pending", 1, "redrive.succeeded", 1): ("resolved", 1),  # late: it was called unknown
    ("parked", 3, "redrive.succeeded", 3): ("resolved", 3),  # late, at the cap
    ("retried", 1, "redrive.succeeded", 1): ("resolved", 1),  # late, while another is out
    ("retried", 0, "redrive.outcome_unknown", 1): ("pending", 1),
    ("retried", 2, "redrive.outcome_unknown", 3): ("parked", 3),  # at the cap
    ("retried", 1, "redrive.outcome_unknown", 1): (
        "retried",
        1,
    ),  # announced again, while another is published
    ("pending", 1, "redrive.outcome_unknown", 1): ("pending", 1),
    ("parked", 1, "redrive.outcome_unknown", 2): ("parked", 2),  # parked while it was out
    ("pending", 1, "redrive.outcome_unknown", 2): ("pending", 2),  # parked and unparked meanwhile
    **{
        key: value
        for kind in ("unroutable", "refused", "expired", "too_late")
        for key, value in {
            ("retried", 0, f"redrive.{kind}", 1): ("parked", 1),
            ("pending", 1, f"redrive.{kind}", 2): ("parked", 2),
            ("parked", 1, f"redrive.{kind}", 2): ("parked", 2),
            ("pending", 1, f"redrive.{kind}", 1): (
                "pending",
                1,
            ),  # announced again, after unparking
            ("retried", 1, f"redrive.{kind}", 1): ("retried", 1),
        }.items()
    },
    **{(status, 1, "triage.resolved", None): ("resolved", 1) for status in OPEN},
    **{(status, 1, "triage.discarded", None): ("discarded", 1) for status in OPEN},
    **{(status, 1, "triage.parked", None): ("parked", 1) for status in OPEN},
    ("parked", 1, "triage.unparked", None): ("pending", 1),
    ("pending", 1, "triage.unparked", None): ("pending", 1),
    ("retried", 1, "triage.unparked", None): ("retried", 1),
    **{(status, 1, "triage.alerted", None): (status, 1) for status in (*OPEN, *CLOSED)},
}


@pytest.mark.parametrize("step", TABLE, ids=str)
def test_each_message_moves_a_case_as_the_table_says(step: tuple[str, int, str, int]) -> None:
    status, count, kind, attempt = step
    found = after(case(status, count), event(kind, attempt))
    assert (found.status, found.redrive_count) == TABLE[step]


@pytest.mark.parametrize("status", [*CLOSED, "superseded"])
@pytest.mark.parametrize("kind", sorted(KINDS - {"triage.alerted"}))
def test_nothing_moves_a_closed_or_superseded_case(status: str, kind: str) -> None:
    closed = case(status, 1)
    told = after(closed, event(kind, 2 if kind.startswith("redrive") else None))
    assert replace(told, handed_to=None, announced={}) == closed
    assert (told.handed_to is not None) == (kind == "redrive.published" and status in CLOSED)


SUCCESSOR = "SAHOOL_EVENTS/ndvi-v2"


def test_a_case_that_was_handed_over_hears_its_new_consumer_and_the_one_that_failed() -> None:
    handed = after(case_of(letter()), event("redrive.published", 1, consumer=SUCCESSOR))
    assert (handed.status, handed.handed_to) == ("retried", SUCCESSOR)
    for speaker in (SUCCESSOR, ADDRESS):
        assert after(handed, event("redrive.succeeded", 1, consumer=speaker)).status == "resolved"
    other = event("redrive.succeeded", 1, consumer="SAHOOL_EVENTS/yield")
    assert after(handed, other) == handed


def test_nobody_speaks_for_a_consumer_without_a_name() -> None:
    handed = after(case_of(letter()), event("redrive.published", 1, consumer=""))
    assert after(handed, event("redrive.succeeded", 1, consumer=None)) == handed


@pytest.mark.parametrize(
    ("consumer", "is_superseded", "count"), [("ndvi-v2", True, 1), ("yield", False, 0)]
)
def test_what_fails_again_where_it_was_handed_to_is_no_failure_of_its_own(
    consumer: str, is_superseded: bool, count: int
) -> None:
    handed = after(case_of(letter()), event("redrive.published", 1, consumer=SUCCESSOR))
    again = letter("again", 1, consumer_name=consumer)
    found, root = apply_dead_letter(handed, again)
    assert root is not None
    assert (found, root.redrive_count, root.handed_to) == (is_superseded, count, SUCCESSOR)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("status", STATUSES)
def test_an_event_that_could_not_be_read_changes_nothing(kind: str, status: str) -> None:
    before = case(status)
    assert after(before, event(kind, 1, parse_error="at is not a time")) == before


def test_an_unreadable_event_of_an_unknown_kind_changes_nothing() -> None:
    assert after(case(), event("redrive.a.b.c", 1, parse_error="unknown subject")) == case()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(("status", "count"), [(s, n) for s in STATUSES for n in (0, 1, 2)])
def test_an_event_told_twice_does_what_it_does_once(kind: str, status: str, count: int) -> None:
    told = event(kind, 2 if kind.startswith("redrive") else None)
    once = after(case(status, count), told)
    assert after(once, told) == once


@pytest.mark.parametrize(
    "kind", ["published", "outcome_unknown", "unroutable", "refused", "expired", "too_late"]
)
def test_an_event_of_an_ended_redrive_told_much_later_changes_nothing(kind: str) -> None:
    now = after(
        case(),
        event("redrive.published", 1),
        letter("again", 1),
        event("redrive.published", 2, trigger="manual"),
    )
    assert now.status == "retried"
    assert after(now, event(f"redrive.{kind}", 1)) == now


# How a case ends


@pytest.mark.parametrize("trigger", ["automatic", "manual"])
def test_a_success_resolves_with_the_cause_and_time_of_its_redrive(trigger: str) -> None:
    found = after(
        case(), event("redrive.published", 1, trigger=trigger), event("redrive.succeeded", 1)
    )
    assert found.resolution_cause == f"{trigger}_redrive"
    assert found.resolved_at == AT


def test_a_redrive_that_does_not_say_its_trigger_was_automatic() -> None:
    assert after(case(), event("redrive.published", 1)).redrive_trigger == "automatic"
    assert after(case(), event("redrive.succeeded", 1)).resolution_cause == "automatic_redrive"


@pytest.mark.parametrize("consumer", ["SAHOOL_EVENTS/other", "OTHER/ndvi", "", None])
def test_a_success_told_by_another_consumer_does_not_count(consumer: str | None) -> None:
    out = after(case(), event("redrive.published", 1))
    assert after(out, event("redrive.succeeded", 1, consumer=consumer)) == out


def test_any_success_counts_where_the_failing_consumer_is_unknown() -> None:
    unknown = replace(case("retried"), consumer=None)
    told = event("redrive.succeeded", 1, consumer="SAHOOL_EVENTS/any")
    assert after(unknown, told).status == "resolved"


def test_a_decision_says_who_closed_it_when_and_why() -> None:
    resolved = after(case(), event("triage.resolved"))
    assert (resolved.resolution_cause, resolved.resolved_at) == ("manual", AT)
    assert resolved.resolution_notes == "because of triage.resolved"
    assert resolved.discarded_at is None
    discarded = after(case(), event("triage.discarded"))
    assert (discarded.discarded_at, discarded.resolved_at) == (AT, None)
    assert discarded.resolution_notes == "because of triage.discarded"


def test_an_alert_is_noted_whatever_the_status() -> None:
    found = after(case("resolved"), event("triage.alerted"))
    assert found == replace(case("resolved"), alert_sent=True, alert_sent_at=AT)


# Chains


def test_a_redrive_that_fails_again_puts_its_root_back_and_is_superseded() -> None:
    root = after(case(), event("redrive.published", 1))
    assert apply_dead_letter(root, letter("again", 1)) == (
        True,
        replace(root, status="pending", redrive_count=1),
    )


@pytest.mark.parametrize("cap", [1, 2, 3, 5])
def test_a_root_is_parked_when_its_redrives_reach_the_cap(cap: int) -> None:
    found = case()
    for attempt in range(1, cap + 1):
        assert found.status == "pending"
        published = event("redrive.published", attempt, redrive_cap=cap)
        found = after(found, published, letter("again", attempt))
    assert (found.status, found.redrive_count) == ("parked", cap)


def test_a_parked_root_stays_parked_when_its_redrive_fails_again() -> None:
    found = after(case(), event("redrive.published", 1), event("triage.parked"), letter("a", 1))
    assert (found.status, found.redrive_count) == ("parked", 1)


def test_a_late_failure_of_an_older_redrive_leaves_the_newer_one_out() -> None:
    out = after(
        case(),
        event("redrive.published", 1),
        event("redrive.outcome_unknown", 1),
        event("redrive.published", 2),
    )
    assert apply_dead_letter(out, letter("late", 1)) == (True, out)


def test_a_failure_of_a_discarded_case_is_superseded_and_changes_nothing() -> None:
    assert apply_dead_letter(case("discarded"), letter("a", 1)) == (True, case("discarded"))


@pytest.mark.parametrize("root", [None, case("resolved"), case("superseded")])
def test_a_failure_without_an_open_root_is_a_case_of_its_own(root: Case | None) -> None:
    assert apply_dead_letter(root, letter("a", 1)) == (False, root)


@pytest.mark.parametrize("consumer", ["other", None])
def test_a_failure_in_another_consumer_is_a_case_of_its_own(consumer: str | None) -> None:
    root = case("retried")
    assert apply_dead_letter(root, letter("a", 1, consumer_name=consumer)) == (False, root)


def test_a_failure_anywhere_counts_where_the_roots_consumer_is_unknown() -> None:
    root = replace(case("retried"), consumer=None)
    assert apply_dead_letter(root, letter("a", 1))[0]


# A failure that comes again


@pytest.mark.parametrize("status", CLOSED)
def test_a_failure_that_began_after_its_case_was_closed_reopens_it(status: str) -> None:
    closed = after(
        case(),
        event("redrive.outcome_unknown", 1),
        event("triage.alerted"),
        event(f"triage.{status}"),
    )
    later = letter(first_attempt_at=AT + timedelta(seconds=1))
    assert apply_repeat(closed, later) == Case(
        ROOT,
        "pending",
        ADDRESS,
        opening=2,
        last_closed_at=AT,
        last_closed_as="manual" if status == "resolved" else "discarded",
        first_attempt_at=later.first_attempt_at,
    )


@pytest.mark.parametrize("seconds", [-1, 0])
@pytest.mark.parametrize("status", CLOSED)
def test_a_failure_that_began_before_its_case_was_closed_is_a_repeat(
    status: str, seconds: int
) -> None:
    closed = after(case(), event(f"triage.{status}"))
    assert apply_repeat(closed, letter(first_attempt_at=AT + timedelta(seconds=seconds))) == closed


@pytest.mark.parametrize("status", [*OPEN, "superseded"])
def test_a_failure_that_comes_again_while_its_case_is_open_is_a_repeat(status: str) -> None:
    assert apply_repeat(case(status), letter(first_attempt_at=AT + timedelta(days=1))) == case(
        status
    )


def test_the_same_dead_letter_of_a_clock_that_is_ahead_is_a_repeat() -> None:
    ahead = letter(first_attempt_at=AT + timedelta(hours=1))
    closed = after(case_of(ahead), event("triage.resolved"))
    assert apply_repeat(closed, ahead) == closed


REOPENED = case(opening=2, redrive_trigger=None)


@pytest.mark.parametrize(
    ("kind", "attempt", "status", "count"),
    [
        *((f"redrive.{kind}", 1, "pending", 0) for kind in ("published", "succeeded", "expired")),
        ("redrive.outcome_unknown", 999, "pending", 0),
        ("redrive.published", 1001, "retried", 0),
        ("redrive.succeeded", 1001, "resolved", 0),
        ("redrive.outcome_unknown", 1001, "pending", 1),
        ("redrive.outcome_unknown", 1003, "parked", 3),
        ("redrive.refused", 1002, "parked", 2),
    ],
)
def test_only_redrives_of_this_opening_move_a_reopened_case(
    kind: str, attempt: int, status: str, count: int
) -> None:
    found = after(REOPENED, event(kind, attempt))
    assert (found.status, found.redrive_count) == (status, count)


def test_a_redrive_is_asked_for_by_who_does_not_know_how_often_the_case_was_opened() -> None:
    assert after(REOPENED, event("redrive.requested", 1)).redrive_not_before == AT
    once = after(REOPENED, event("redrive.outcome_unknown", 1001))
    assert after(once, event("redrive.requested", 1)) == once
    assert after(once, event("redrive.requested", 1002)).redrive_not_before == AT


def test_a_late_failure_of_an_earlier_openings_redrive_is_superseded_and_changes_nothing() -> None:
    assert apply_dead_letter(REOPENED, letter("late", 1)) == (True, REOPENED)
    assert apply_dead_letter(REOPENED, letter("again", 1001))[1] == replace(
        REOPENED, redrive_count=1
    )


@pytest.mark.parametrize(("opening", "nth", "number"), [(1, 1, 1), (2, 1, 1001), (3, 12, 2012)])
def test_the_number_of_an_attempt_says_its_opening(opening: int, nth: int, number: int) -> None:
    assert attempt_number(opening, nth) == number
    assert opening_and_nth(number) == (opening, nth)


# The fold over a batch


def fold(*messages: CaseEvent | DeadLetter, known: Case | None = None) -> Fold:
    return fold_all(messages, {known.failure_id: known} if known else {})


def test_new_failures_are_copied_with_their_final_status() -> None:
    found = fold(letter(), event("redrive.published", 1), letter("a", 1), event("triage.parked"))
    assert found.new["status"].to_list() == ["parked", "superseded"]
    assert found.new["root_failure_id"].to_list() == [None, ROOT]
    assert found.new["dlq_sequence"].to_list() == [1, 3]
    assert list(found.changed()) == []


def test_known_failures_are_updated_once_where_they_changed() -> None:
    found = fold(event("redrive.published", 1), letter("a", 1), known=case())
    now = case("pending", 1, redrive_trigger="automatic", handed_to=ADDRESS, announced=FIRST)
    assert list(found.changed()) == [now]
    assert list(fold(event("triage.unparked"), known=case()).changed()) == []


def test_repeats_of_a_failure_are_counted_and_change_nothing() -> None:
    new = fold(letter(), event("triage.resolved"), letter(), letter())
    assert new.new.select("seen_count", "status").rows() == [(3, "resolved")]
    old = fold(letter(), letter(), known=case("resolved"))
    assert (old.repeats, old.new.height, list(old.changed())) == ([(ROOT, 2)], 0, [])


def test_the_row_of_a_reopened_case_is_its_latest_dead_letter() -> None:
    later = letter(first_attempt_at=AT + timedelta(hours=1), error_type="KeyError")
    new = fold(letter(), event("triage.resolved"), letter(), later, later)
    columns = ["dlq_sequence", "error_type", "seen_count", "status", "opening", "last_closed_at"]
    assert new.new.select(columns).rows() == [(4, "KeyError", 4, "pending", 2, AT)]
    assert (new.reopened, new.repeats) == ([], [])

    known = replace(case("resolved"), resolved_at=AT, resolution_cause="manual")
    old = fold(letter(), later, event("triage.parked"), known=known)
    assert old.new.select(columns).rows() == [(2, "KeyError", 2, "parked", 2, AT)]
    assert (old.reopened, old.repeats, list(old.changed())) == ([ROOT], [], [])


def test_a_repeat_of_a_redrive_that_failed_again_counts_once() -> None:
    found = fold(letter(), event("redrive.published", 1), letter("a", 1), letter("a", 1))
    assert found.new.select("redrive_count", "seen_count").rows() == [(1, 1), (0, 2)]
    assert len(found.redrive_ends) == 1


def test_events_about_unknown_failures_are_left_alone() -> None:
    found = fold(event("triage.resolved"), event("redrive.succeeded", 1, failure_id=None))
    assert (found.new.height, list(found.changed()), found.redrive_ends) == (0, [], [])


@pytest.mark.parametrize("kind", ["redrive.a.b.c", "redrive", "triage.redrive.published"])
def test_an_event_of_an_unknown_kind_can_not_stop_the_fold(kind: str) -> None:
    found = fold(event(kind, 1, parse_error="unknown subject"), known=case())
    assert (list(found.changed()), found.redrive_ends) == ([], [])


@pytest.mark.parametrize(
    "kind", ["succeeded", "unroutable", "refused", "expired", "too_late", "outcome_unknown"]
)
@pytest.mark.parametrize("status", STATUSES)
def test_the_outbox_hears_how_each_redrive_ended_whatever_the_case_is(
    kind: str, status: str
) -> None:
    known = case(status, announced=FIRST)
    told = event(f"redrive.{kind}", 1, consumer_version="2.4")
    (end,) = fold(told, known=known).redrive_ends
    assert end == [kind, f"because of redrive.{kind}", AT, "2.4", ids.redrive_id(ROOT, 1)]


@pytest.mark.parametrize("status", STATUSES)
def test_a_resolution_in_a_version_is_stored_with_open_and_closed_cases(status: str) -> None:
    known = case(status, resolved_in_version="2.3")
    after = apply_event(known, event("triage.resolved", resolved_in_version="2.4"))
    if status == "superseded":
        assert after == known
        return
    assert after.resolved_in_version == "2.4"
    assert after.status == (status if status in CLOSED else "resolved")
    later = apply_event(after, event("triage.resolved"))
    assert later.resolved_in_version == "2.4"


def test_the_outbox_hears_of_a_redrive_that_failed_again() -> None:
    again = letter("a", 1, consumer_version="2.4")
    (end,) = fold(again, known=case("retried", announced=FIRST)).redrive_ends
    assert end == ["failed_again", "ValueError", T0, "2.4", ids.redrive_id(ROOT, 1)]


@pytest.mark.parametrize("status", STATUSES)
def test_the_outbox_does_not_hear_other_consumers(status: str) -> None:
    told = event("redrive.succeeded", 1, consumer="SAHOOL_EVENTS/other")
    other = letter("a", 1, consumer_name="other")
    known = case(status, announced=FIRST)
    assert fold(told, other, known=known).redrive_ends == []


@pytest.mark.parametrize("cut", range(7))
def test_the_batches_in_which_a_log_is_read_make_no_difference(cut: int) -> None:
    log = [
        letter(),
        event("redrive.published", 1),
        letter("a", 1),
        event("redrive.published", 2, trigger="manual"),
        event("triage.alerted"),
        event("redrive.succeeded", 2),
    ]
    first = fold(*log[:cut])
    known = cases_of(first)
    rest = fold_all(log[cut:], known)
    cases = known | cases_of(rest) | {found.failure_id: found for found in rest.changed()}
    whole = cases_of(fold(*log))
    assert cases == whole
    assert whole[ROOT].resolution_cause == "manual_redrive"


# What has no cause


def by_way_of(redrive_id: str, kind: str = "triage.discarded") -> CaseEvent:
    """A decision on ROOT, given for a dead letter that names that redrive."""
    return event(kind, 1, redrive_id=redrive_id, consumer=None)


@pytest.mark.parametrize(
    "forged",
    [
        event("redrive.succeeded", 1, redrive_id=FORGED),
        event("redrive.succeeded", 2),
        event("redrive.succeeded", 2, redrive_id=ids.redrive_id(ROOT, 1)),
        letter("a", 1, redrive_id=FORGED),
        letter("a", 2),
        *(by_way_of(FORGED, f"triage.{kind}") for kind in ("resolved", "discarded", "parked")),
    ],
    ids=lambda message: f"{getattr(message, 'kind', 'dead letter')}-{message.redrive_id}",
)
@pytest.mark.parametrize("status", STATUSES)
def test_what_names_a_redrive_that_nobody_announced_changes_no_case(
    status: str, forged: CaseEvent | DeadLetter
) -> None:
    found = fold(forged, known=case(status, announced=FIRST))
    assert (list(found.changed()), found.redrive_ends) == ([], [])
    (claim,) = found.claims
    assert (claim.failure_id, claim.redrive_id, claim.why) == (
        ROOT,
        forged.redrive_id,
        "unannounced",
    )
    assert found.new["status"].to_list() == ["pending"] * isinstance(forged, DeadLetter)


def test_a_success_that_another_consumer_tells_is_kept_as_such() -> None:
    told = event("redrive.succeeded", 1, consumer="SAHOOL_EVENTS/other")
    (claim,) = fold(told, known=case("retried", announced=FIRST)).claims
    assert claim.why == "not_addressee"


@pytest.mark.parametrize("cut", range(5))
@pytest.mark.parametrize(
    ("outcome", "status", "count"),
    [
        (event("redrive.succeeded", 1), "resolved", 0),
        (letter("a", 1), "pending", 1),
        (by_way_of(ids.redrive_id(ROOT, 1)), "discarded", 0),
    ],
    ids=["succeeded", "failed again", "discarded"],
)
def test_what_comes_before_its_redrive_is_announced_counts_then(
    outcome: CaseEvent | DeadLetter, status: str, count: int, cut: int
) -> None:
    log = [letter(), outcome, event("triage.alerted"), event("redrive.published", 1)]
    first = fold(*log[:cut])
    known = cases_of(first)
    rest = fold_all(log[cut:], known, first.claims)
    rows = known | cases_of(rest) | {found.failure_id: found for found in rest.changed()}
    assert (rows[ROOT].status, rows[ROOT].redrive_count) == (status, count)
    assert rest.claims == []
    assert rest.founded == first.claims
    if isinstance(outcome, DeadLetter):
        assert rows[outcome.failure_id].status == "superseded"
    assert len([*first.redrive_ends, *rest.redrive_ends]) == (status != "discarded")


def test_a_redrive_of_an_older_version_that_nothing_else_tells_of_is_known_by_its_id() -> None:
    unknown = case("retried", announced=None)
    (now,) = fold(event("redrive.succeeded", 1), known=unknown).changed()
    assert now.status == "resolved"
    forged = event("redrive.succeeded", 1, redrive_id=FORGED)
    assert list(fold(forged, known=unknown).changed()) == []
