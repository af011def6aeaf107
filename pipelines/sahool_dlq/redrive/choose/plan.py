"""Which failures to redrive; the plan is stored as a batch in PostgreSQL before anything is
published.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from psycopg import Connection
from psycopg.types.json import Jsonb

from sahool_dlq.deadletter.cases import ATTEMPTS_PER_OPENING, attempt_number
from sahool_dlq.deadletter.record import BRIDGED_REASONS
from sahool_dlq.deadletter.replays import REPLAY, ReplayedEvent
from sahool_dlq.errors import RedriveError
from sahool_dlq.jetstream.consumers import parts_of
from sahool_dlq.redrive.batches import move
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.edit.patch import edit_of
from sahool_dlq.stores.postgres.addressees import ADDRESS, IS_FOREIGN
from sahool_dlq.stores.postgres.audit import audit
from sahool_dlq.stores.postgres.replays import store_replays, waiting_replays

__all__ = ["Order", "Plan", "PlannedFailure", "PlannedGroup", "find_pending", "freeze", "plan"]

_LAST_ATTEMPT = f"((f.opening - 1) * {ATTEMPTS_PER_OPENING} + f.redrive_count)"
"""The number of the last failed redrive, over `failed_events f`."""

Addressee = tuple[str, str]
"""`<stream>/<durable>`, and the subject of the events that failed there."""

IDLE = (
    f"NOT EXISTS (SELECT FROM redrives r WHERE r.failure_id = f.id AND r.attempt > {_LAST_ATTEMPT}"
    " AND r.state IN ('planned', 'published', 'succeeded'))"
)
"""The failure is in no batch, over `failed_events f`."""


class Chosen(Protocol):
    """A selection, of failures or of events."""

    def as_json(self) -> dict[str, Any]: ...


class PlannedFailure(NamedTuple):
    """A failure that a redrive would publish."""

    failure_id: str
    group_id: str
    error_type: str
    service: str  # that failed
    subject: str
    address: str | None  # <stream>/<durable> of the redrive; None: unknown
    redrive_count: int
    opening: int  # of its case; 1 for one that was never reopened
    is_foreign: bool  # that consumer may not use our library
    error_message: str
    failed_at: datetime  # when the consumer gave up
    ended_at: datetime | None  # when its last redrive ended
    epoch: str | None
    dlq_sequence: int | None
    published_at: datetime | None  # server's time of the dead letter

    @property
    def attempt(self) -> int:
        """The number of its next redrive."""
        return attempt_number(self.opening, self.redrive_count + 1)


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """One group's part of a plan."""

    group_id: str
    error_type: str
    service: str
    count: int
    is_foreign: bool = False  # the failing consumers do not use our library


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of a selection."""

    rows: tuple[PlannedFailure, ...]
    limit_reached: bool = False  # more may match

    @property
    def count(self) -> int:
        """Failures, each published once."""
        return len(self.rows)

    @property
    def groups(self) -> list[PlannedGroup]:
        """By group, type and service, the largest first."""
        counts = Counter((r.group_id, r.error_type, r.service, r.is_foreign) for r in self.rows)
        return [
            PlannedGroup(group, error_type, service, count, is_foreign)
            for (group, error_type, service, is_foreign), count in counts.most_common()
        ]

    @property
    def services(self) -> dict[str, int]:
        """Failures by the service that failed, the largest first."""
        return dict(Counter(row.service for row in self.rows).most_common())

    @property
    def subjects(self) -> list[str]:
        """The subjects of the events."""
        return sorted({row.subject for row in self.rows})

    @property
    def addressees(self) -> dict[str, set[str | None]]:
        """The consumers that failed, by subject; None if unknown."""
        found: dict[str, set[str | None]] = {}
        for row in self.rows:
            found.setdefault(row.subject, set()).add(row.address)
        return found


@dataclass(frozen=True, slots=True)
class Order:
    """How to execute a batch, and who requested it.

    Raises RedriveError for an edit that cannot be stored, or a consumer that cannot be addressed,
    from a command or a form.
    """

    trigger: str  # automatic | manual
    requested_by: str
    reason: str
    redirect_to: str | None = None  # a subject instead of their own
    patch: Any = None  # the edit, see `Edit.stored`
    per_second: float | None = None  # None leaves it to the budget
    addressed_to: str | None = None  # <stream>/<durable> instead of the consumer that failed
    max_age_seconds: float | None = None  # of an event; None takes any age
    own_copy: bool = (
        True  # publish the dead letter's copy if the events' stream no longer has the event
    )
    needs_approval: bool = False  # whatever its size

    def __post_init__(self) -> None:
        if self.addressed_to is not None:
            check_addressee(self.addressed_to, self.redirect_to)
        if self.patch:
            edit_of(self.patch)


def check_addressee(address: str, redirect_to: str | None) -> None:
    """Raise RedriveError if this consumer cannot be addressed."""
    if parts_of(address) is None:
        raise RedriveError(
            f"{address!r} is not a consumer: write STREAM/CONSUMER, as a dry run shows them."
        )
    if redirect_to is not None:
        raise RedriveError(
            "A redirected event is addressed to no consumer: give --to or --for, not both."
        )


def plan(connection: Connection[Any], selection: Selection) -> Plan:
    """The failures that a redrive of this selection would publish; changes nothing.

    Pending ones that are in no batch; a parked one only by its id. Raises RedriveError for an empty
    selection or an invalid id.
    """
    condition, values = selection.condition()
    states = ["pending", "parked"] if selection.failure_ids else ["pending"]
    rows = find_pending(
        connection, f"f.status = ANY(%s) AND {condition}", [states, *values], selection.limit
    )
    return Plan(tuple(rows), len(rows) >= selection.limit)


def find_pending(
    connection: Connection[Any], condition: str, values: Sequence[Any], limit: int
) -> list[PlannedFailure]:
    """Failures that are in no batch, the oldest first."""
    rows = connection.execute(
        f"SELECT f.id::text, coalesce(f.group_id, ''), f.error_type, service(f),"  # noqa: S608  (our own names, bound values)
        f" f.original_subject, {ADDRESS}, f.redrive_count,"
        f" f.opening, {IS_FOREIGN}, left(f.error_message, 500), f.dlq_timestamp,"
        " (SELECT max(r.ended_at) FROM redrives r WHERE r.failure_id = f.id"
        f"   AND r.attempt = {_LAST_ATTEMPT}), f.epoch, f.dlq_sequence, f.published_at"
        f" FROM failed_events f WHERE {condition} AND {IDLE}"
        " ORDER BY f.dlq_timestamp, f.id LIMIT %s",
        [list(BRIDGED_REASONS), *values, limit],
    )
    return [PlannedFailure(*row) for row in rows]


def freeze(
    connection: Connection[Any],
    planned: Plan,
    selection: Chosen,
    order: Order,
    *,
    needs_approval: bool = False,
    shown_patch: Any = None,
    replayed: Sequence[ReplayedEvent] = (),
) -> str:
    """Store the batch with its outbox rows and audit row; returns the batch's id.

    A failure or event that another batch took meanwhile is left out. `shown_patch` is the edit as
    the audit may show it. With `replayed`, the events of its rows, it is a replay.
    """
    if not order.reason.strip():
        raise RedriveError("Give a reason: it is stored with the batch and in the audit.")
    batch_id = str(uuid.uuid4())
    kind = REPLAY if replayed else "redrive"
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO redrive_batches (id, kind, trigger, requested_by, reason, selection,"
            " state, planned, redirect_to, patch, per_second, max_age_seconds, own_copy)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'planned', 0, %s, %s, %s, %s, %s)",
            [
                batch_id,
                kind,
                order.trigger,
                order.requested_by,
                order.reason,
                Jsonb(selection.as_json()),
                order.redirect_to,
                Jsonb(order.patch) if order.patch else None,
                order.per_second,
                order.max_age_seconds,
                order.own_copy,
            ],
        )
        rows = planned.rows
        if replayed:
            cursor.execute("LOCK TABLE replays IN SHARE ROW EXCLUSIVE MODE")  # one plan at a time
            taken = waiting_replays(connection, [each.replay_of for each in replayed])
            kept = [each for each in replayed if each.replay_of not in taken]
            ids = {each.id for each in kept}
            rows = tuple(row for row in rows if row.failure_id in ids)
            store_replays(connection, kept, planned.rows[0].service)
        cursor.executemany(
            "INSERT INTO redrives (id, failure_id, attempt, batch_id, group_id, subject,"
            " addressed_to, is_replay, state) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'planned')"
            " ON CONFLICT (failure_id, attempt) DO UPDATE SET batch_id = excluded.batch_id,"
            " subject = excluded.subject, addressed_to = excluded.addressed_to,"
            " group_id = excluded.group_id, state = 'planned', state_reason = NULL, ended_at = NULL"
            " WHERE redrives.state = 'cancelled'",
            [
                [
                    str(uuid.uuid4()),  # it cannot be guessed: whoever knows it was given the event
                    row.failure_id,
                    row.attempt,
                    batch_id,
                    row.group_id,
                    order.redirect_to or row.subject,
                    order.addressed_to or row.address,
                    bool(replayed),
                ]
                for row in rows
            ],
        )
        counted = cursor.execute(
            "UPDATE redrive_batches SET planned ="
            " (SELECT count(*) FROM redrives WHERE batch_id = %(id)s) WHERE id = %(id)s"
            " RETURNING planned",
            {"id": batch_id},
        ).fetchone()
        audit(
            connection,
            "redrive.planned",
            actor=order.requested_by,
            reason=order.reason,
            batch_id=batch_id,
            detail={
                "kind": kind,
                "selection": selection.as_json(),
                "trigger": order.trigger,
                "failures": counted[0] if counted else 0,
                **({"redirect_to": order.redirect_to} if order.redirect_to else {}),
                **({"addressed_to": order.addressed_to} if order.addressed_to else {}),
                **({"max_age_seconds": order.max_age_seconds} if order.max_age_seconds else {}),
                "own_copy": order.own_copy,
                **({"patch": shown_patch} if shown_patch else {}),
            },
        )
        if needs_approval:
            move(connection, batch_id, "awaiting_approval", actor=order.requested_by)
    return batch_id
