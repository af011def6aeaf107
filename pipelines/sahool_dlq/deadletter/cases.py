"""The life of a failure, in one place: the effect of each message of the log on its case.

A case is one root failure, one live row of `failed_events`. The drain applies dead letters and case
events in log order with `apply_dead_letter`, `apply_repeat` and `apply_event`; nothing else changes
a status.

    pending ──requested──▶ pending, to be redriven when due
    pending ──published──▶ retried ──succeeded──▶ resolved
       ▲                      │
       └──── failed again ────┘── at the cap, unroutable, refused, expired, too_late ──▶ parked
    pending | retried | parked ──resolved / discarded (by hand)──▶ resolved / discarded
    resolved | discarded ──failed again──▶ pending, in its next opening

The attempt number of a redrive says which opening it belongs to: 1, 2, … in the first, 1001, 1002,
… in the second. So a late message about an earlier opening changes nothing, no two redrives of a
failure have the same id, and consumers that do not know openings pass the number on.

Anybody who may write dead letters or successes can report the end of a redrive. It counts only if
the log has the redrive's `published`, which only the redriver may write, and if it has the same id,
which nobody can guess (`is_founded`). A report before its `published` counts as soon as that is
there.

The cap is the one in `published`: so the same log always gives the same cases, independent of the
current setting.

A replay publishes an event that did not fail. Its root is no failure but the replay itself: a
`Case` that only checks who may report its outcome. If it fails, its dead letter opens a case.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.ids import consumer_address, redrive_id
from sahool_dlq.deadletter.record import DeadLetter

OPEN = ("pending", "retried", "parked")
"""As `is_open` of the migration 0025 says in SQL."""
CLOSED = ("resolved", "discarded")
STATUSES = (*OPEN, *CLOSED, "superseded")

ATTEMPTS_PER_OPENING = 1_000
DEFAULT_REDRIVE_CAP = 3
"""Failed redrives after which a case is parked, if the log does not say (older versions)."""


@dataclass(frozen=True, slots=True)
class Case:
    """The part of a `failed_events` row that the log changes after it is stored."""

    failure_id: str
    status: str = "pending"
    consumer: str | None = None  # <stream>/<durable> of the failing consumer, where known
    redrive_count: int = 0  # redrives of this opening that ended without success
    redrive_trigger: str | None = None  # of the last redrive: automatic | manual
    resolved_at: datetime | None = None
    resolution_cause: str | None = None  # automatic_redrive | manual_redrive | manual
    resolution_notes: str | None = None
    discarded_at: datetime | None = None
    alert_sent: bool = False
    alert_sent_at: datetime | None = None
    redrive_not_before: datetime | None = None  # when a requested redrive is due
    redrive_cap: int | None = None  # from the last published redrive
    opening: int = 1  # plus 1 each time it was closed and failed again
    last_closed_at: datetime | None = None  # the closing before this opening
    last_closed_as: str | None = None  # discarded, or the resolution_cause that it had
    handed_to: str | None = None  # <stream>/<durable> of its latest redrive
    resolved_in_version: str | None = None  # of the last decision that said one
    announced: Mapping[str, int] | None = field(default_factory=dict)
    """The redrives whose `published` is in the log: attempts by id. None if an older version stored
    the case and they are unknown.
    """
    first_attempt_at: datetime | None = None  # of the dead letter that opened it
    is_replay: bool = False  # no failure, but an event that is published again although it did not


def case_of(letter: DeadLetter) -> Case:
    """The case that a dead letter opens."""
    return Case(
        letter.failure_id,
        consumer=consumer_address(letter.original_stream, letter.consumer_name),
        first_attempt_at=letter.first_attempt_at,
    )


def attempt_number(opening: int, nth: int) -> int:
    """The number of the `nth` redrive (1 for the first) of an opening."""
    return (opening - 1) * ATTEMPTS_PER_OPENING + nth


def opening_and_nth(attempt: int) -> tuple[int, int]:
    """The opening of a redrive, and its number within that opening."""
    opening = (max(attempt, 1) - 1) // ATTEMPTS_PER_OPENING + 1
    return opening, attempt - attempt_number(opening, 0)


def apply_repeat(case: Case, letter: DeadLetter) -> Case:
    """The case after another dead letter of the same failure.

    If its first attempt is after the closing of the case, it reopens the case: its consumer was
    reset, and the event failed again. Any other one is the same failure, published again.
    """
    closed_at = case.resolved_at or case.discarded_at
    if case.status not in CLOSED or closed_at is None:
        return case
    if letter.first_attempt_at <= max(closed_at, case.first_attempt_at or closed_at):
        return case
    cause = "discarded" if case.status == "discarded" else case.resolution_cause
    return replace(
        case_of(letter),
        consumer=case.consumer,
        opening=case.opening + 1,
        last_closed_at=closed_at,
        last_closed_as=cause,
        handed_to=case.handed_to,
        resolved_in_version=case.resolved_in_version,
        announced=case.announced,
    )


def apply_dead_letter(root: Case | None, letter: DeadLetter) -> tuple[bool, Case | None]:
    """The effect of a dead letter of a redrive on its root.

    Returns whether the letter is superseded (its root stays the only live row), and the new root.
    It is a separate case if the root is unknown, superseded or resolved, or if the failing consumer
    is neither the root's nor the one that it was handed to. A redrive that already ended, or of an
    earlier opening, does not change its root.
    """
    address = consumer_address(letter.original_stream, letter.consumer_name)
    return apply_failed_again(root, address, letter.redrive_attempt or 0)


def apply_failed_again(
    root: Case | None, consumer: str | None, attempt: int
) -> tuple[bool, Case | None]:
    """The same for a dead letter with only its consumer and attempt known."""
    if root is None or root.is_replay or root.status in ("resolved", "superseded"):
        return False, root
    if not _is_asked(root, consumer):
        return False, root
    opening, nth = opening_and_nth(attempt)
    if root.status == "discarded" or opening < root.opening or nth <= root.redrive_count:
        return True, root
    return True, _ended_without_success(root, nth)


def is_failed_replay(root: Case | None, consumer: str | None) -> bool:
    """Whether a dead letter with this root ends a replay: its addressed consumer failed."""
    return root is not None and root.is_replay and _is_asked(root, consumer)


def is_claim(event: CaseEvent) -> bool:
    """Whether somebody other than the redriver reports it about a redrive: then it must be founded.

    This includes a decision about a dead letter of a redrive, if it is published for the root.
    """
    is_decision = event.kind.startswith("triage.") and event.redrive_id is not None
    return event.kind == "redrive.succeeded" or is_decision


def is_founded(case: Case | None, said_id: str | None, attempt: int | None) -> bool:
    """Whether the log says that the redrive with this id and attempt was published.

    A message restored from PostgreSQL has no id; it was checked before.
    """
    if case is None:
        return False
    if said_id is None:
        return True
    if case.announced is None:
        return said_id == redrive_id(case.failure_id, attempt or 0)
    return attempt is not None and case.announced.get(said_id) == attempt


def is_answer(case: Case, event: CaseEvent) -> bool:
    """Whether an outcome comes from the addressed consumer of the redrive."""
    return _is_asked(case, event.consumer)


def _is_asked(case: Case, consumer: str | None) -> bool:
    """Whether a consumer's reports count for the case: the one that failed, or that it was handed
    to."""
    if not case.consumer:
        return True
    return consumer is not None and consumer in (case.consumer, case.handed_to)


def apply_event(case: Case, event: CaseEvent) -> Case:
    """The case after an event; unchanged if the event does not apply to its status."""
    if event.parse_error or case.status == "superseded":
        return case
    topic, kind = event.kind.split(".")
    if event.kind == "redrive.published":
        case = _announced(replace(case, handed_to=event.consumer), event)
    if topic == "triage":
        return _triage(case, event, kind)
    return _redrive(case, event, kind, event.attempt or 0)


def _announced(case: Case, event: CaseEvent) -> Case:
    if event.redrive_id is None or event.attempt is None:
        return case
    return replace(case, announced={event.redrive_id: event.attempt, **(case.announced or {})})


def _redrive(case: Case, event: CaseEvent, kind: str, attempt: int) -> Case:
    if case.status not in OPEN:
        return case
    opening, nth = opening_and_nth(attempt)
    if (
        opening < case.opening and kind != "requested"
    ):  # the requester does not know how often it opened
        return case
    if kind == "succeeded":
        if not is_answer(case, event):
            return case
        cause = f"{case.redrive_trigger or 'automatic'}_redrive"
        return _closed(case, status="resolved", resolved_at=event.at, resolution_cause=cause)
    if nth <= case.redrive_count:
        return case  # repeated or late: that attempt has ended, and another may be running
    if kind == "requested":
        if case.status != "pending":
            return case  # one is running, or a person parked it
        return replace(case, redrive_not_before=event.not_before or event.at)
    case = replace(case, redrive_not_before=None)  # the request is done
    if kind == "published":
        case = replace(case, redrive_cap=event.redrive_cap)
        if case.status == "retried":
            return case
        return replace(case, status="retried", redrive_trigger=event.trigger or "automatic")
    if kind == "outcome_unknown":
        return _ended_without_success(case, nth)
    return replace(case, status="parked", redrive_count=nth, resolution_notes=event.reason)


def _triage(case: Case, event: CaseEvent, kind: str) -> Case:
    if kind == "alerted":
        return replace(case, alert_sent=True, alert_sent_at=event.at)
    if kind == "resolved" and event.resolved_in_version:
        case = replace(case, resolved_in_version=event.resolved_in_version)
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


def _ended_without_success(case: Case, nth: int) -> Case:
    cap = case.redrive_cap or DEFAULT_REDRIVE_CAP
    status = "parked" if case.status == "parked" or nth >= cap else "pending"
    return replace(case, status=status, redrive_count=nth, redrive_not_before=None)
