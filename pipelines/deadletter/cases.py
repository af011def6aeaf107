"""The life of a failure, in one place: what each message of the log does to its case.

A case is one root failure, one live row of `failed_events`. The drain folds dead letters and case
events in log order with `apply_dead_letter` and `apply_event`; nothing else changes a status.

    pending ──requested──▶ pending, to be redriven when due
    pending ──published──▶ retried ──succeeded──▶ resolved
       ▲                      │
       └──── failed again ────┘── at the cap, unroutable, refused, expired ──▶ parked
    pending | retried | parked ──resolved / discarded (by hand)──▶ resolved / discarded
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pipelines.deadletter.case_events import CaseEvent
from pipelines.deadletter.ids import consumer_address
from pipelines.deadletter.record import DeadLetter

LIVE = ("pending", "retried", "parked")
CLOSED = ("resolved", "discarded")
STATUSES = (*LIVE, *CLOSED, "superseded")


@dataclass(frozen=True, slots=True)
class Case:
    """The part of a `failed_events` row that the log changes after it is stored."""

    failure_id: str
    status: str = "pending"
    consumer: str | None = None  # <stream>/<durable> of the failing consumer, where known
    redrive_count: int = 0  # redrives that ended without success
    trigger: str | None = None  # of the last redrive: automatic | manual
    resolved_at: datetime | None = None
    resolution_cause: str | None = None  # automatic_redrive | manual_redrive | manual
    resolution_notes: str | None = None
    discarded_at: datetime | None = None
    alert_sent: bool = False
    alert_sent_at: datetime | None = None
    redrive_not_before: datetime | None = None  # when a redrive that was asked for is due


def case_of(letter: DeadLetter) -> Case:
    """The case that a dead letter opens."""
    return Case(
        letter.failure_id, consumer=consumer_address(letter.original_stream, letter.consumer_name)
    )


def apply_dead_letter(root: Case | None, letter: DeadLetter, cap: int) -> tuple[bool, Case | None]:
    """What a dead letter that comes from a redrive does to its root.

    Returns whether the letter is superseded (its root stays the one live row), and the root as it
    is then. It is a case of its own where the root is unknown, superseded itself or resolved, or
    where another consumer than the root's failed on it. A redrive that ended already says nothing
    new about its root.
    """
    if root is None or root.status in ("resolved", "superseded"):
        return False, root
    if root.consumer and root.consumer != consumer_address(
        letter.original_stream, letter.consumer_name
    ):
        return False, root
    attempt = letter.redrive_attempt or 0
    if root.status == "discarded" or attempt <= root.redrive_count:
        return True, root
    return True, _ended_without_success(root, attempt, cap)


def is_answer(case: Case, event: CaseEvent) -> bool:
    """Whether an outcome comes from the consumer that the redrive was addressed to."""
    return not case.consumer or event.consumer == case.consumer


def apply_event(case: Case, event: CaseEvent, cap: int) -> Case:
    """The case after an event; unchanged where the event does not apply to its status."""
    if event.parse_error or case.status == "superseded":
        return case
    topic, kind = event.kind.split(".")
    if topic == "triage":
        return _triage(case, event, kind)
    return _redrive(case, event, kind, event.attempt or 0, cap)


def _redrive(case: Case, event: CaseEvent, kind: str, attempt: int, cap: int) -> Case:
    if case.status not in LIVE:
        return case
    if kind == "succeeded":
        if not is_answer(case, event):
            return case
        cause = f"{case.trigger or 'automatic'}_redrive"
        return _closed(case, status="resolved", resolved_at=event.at, resolution_cause=cause)
    if attempt <= case.redrive_count:
        return case  # said again, or late: that attempt has ended, and another may be out
    if kind == "requested":
        if case.status != "pending":
            return case  # one is out, or a person keeps it
        return replace(case, redrive_not_before=event.not_before or event.at)
    case = replace(case, redrive_not_before=None)  # what was asked for has come
    if kind == "published":
        if case.status == "retried":
            return case
        return replace(case, status="retried", trigger=event.trigger or "automatic")
    if kind == "outcome_unknown":
        return _ended_without_success(case, attempt, cap)
    return replace(case, status="parked", redrive_count=attempt, resolution_notes=event.reason)


def _triage(case: Case, event: CaseEvent, kind: str) -> Case:
    if kind == "alerted":
        return replace(case, alert_sent=True, alert_sent_at=event.at)
    if case.status in CLOSED:
        return case
    if kind == "resolved":
        return _closed(
            case,
            status="resolved",
            resolved_at=event.at,
            resolution_cause="manual",
            resolution_notes=event.reason,
        )
    if kind == "discarded":
        return _closed(
            case, status="discarded", discarded_at=event.at, resolution_notes=event.reason
        )
    if kind == "parked" and case.status != "parked":
        return replace(case, status="parked", resolution_notes=event.reason)
    if kind == "unparked" and case.status == "parked":
        return replace(case, status="pending", resolution_notes=event.reason)
    return case


def _closed(case: Case, **changes: Any) -> Case:
    return replace(case, redrive_not_before=None, **changes)


def _ended_without_success(case: Case, attempt: int, cap: int) -> Case:
    status = "parked" if case.status == "parked" or attempt >= cap else "pending"
    return replace(case, status=status, redrive_count=attempt, redrive_not_before=None)
