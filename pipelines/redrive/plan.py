"""Which failures to redrive, frozen as a batch in Postgres before anything is published."""

import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from pipelines.deadletter.error_families import with_subclasses
from pipelines.deadletter.ids import consumer_address, is_uuid, redrive_id
from pipelines.deadletter.record import BRIDGED_REASONS
from pipelines.errors import RedriveError


@dataclass(frozen=True, slots=True)
class Selection:
    """What to redrive: every condition that is given must hold.

    With `due_at` it is what a schedule takes: also the failures whose redrive was asked for and is
    due then, whatever else they are, and none whose redrive was asked for a later time.
    """

    failure_ids: tuple[str, ...] = ()
    group_id: str | None = None
    error_types: tuple[str, ...] = ()  # with their known subclasses
    service: str | None = None
    tenant_id: str | None = None
    limit: int = 10_000
    due_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The conditions that were given."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["due_at"] = self.due_at and self.due_at.isoformat()
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """The share of one group in a plan."""

    group_id: str
    error_type: str
    service: str
    count: int
    is_foreign: bool = False  # the consumers that failed have no code of ours


@dataclass(frozen=True, slots=True)
class Plan:
    """What a selection comes to."""

    count: int
    groups: tuple[PlannedGroup, ...]
    rows: tuple[tuple[Any, ...], ...]  # id, group, subject, stream, consumer, redrive_count, …

    @property
    def foreign_subjects(self) -> list[str]:
        """Subjects on which a redrive reaches consumers that do not know whom it is for."""
        return sorted({row[2] for row in self.rows if row[8]})


def plan(connection: Connection[Any], selection: Selection, cap: int) -> Plan:
    """The failures that a redrive of this selection would publish; touches nothing.

    Only pending roots below the cap; a parked one only by its id. Raises RedriveError for an
    empty selection or an id that is none.
    """
    where, values = _conditions(selection)
    by_id = bool(selection.failure_ids)
    states = ["pending", "parked"] if by_id else ["pending"]
    rows = connection.execute(
        "SELECT id::text, group_id, original_subject, original_stream, consumer_name,"  # noqa: S608
        " redrive_count, error_type, coalesce(consumer_service, source_service),"
        " dlq_reason = ANY(%s)"
        f" FROM failed_events f WHERE status = ANY(%s) AND redrive_count < %s AND {where}"
        " AND NOT EXISTS (SELECT FROM redrives r WHERE r.failure_id = f.id"
        "   AND r.attempt > f.redrive_count AND r.state IN ('planned', 'published', 'succeeded'))"
        " ORDER BY dlq_timestamp, id LIMIT %s",
        [list(BRIDGED_REASONS), states, 2**31 - 1 if by_id else cap, *values, selection.limit],
    ).fetchall()
    counts = Counter((row[1] or "", row[6], row[7], row[8]) for row in rows)
    groups = [
        PlannedGroup(group, error_type, service, count, is_foreign)
        for (group, error_type, service, is_foreign), count in counts.items()
    ]
    groups.sort(key=lambda group: -group.count)
    return Plan(len(rows), tuple(groups), tuple(rows))


def freeze(
    connection: Connection[Any],
    planned: Plan,
    selection: Selection,
    *,
    trigger: str,
    requested_by: str,
    reason: str,
) -> str:
    """Write the batch and its outbox rows; returns the batch's id.

    A failure that another batch took meanwhile is left to that one.
    """
    batch_id = str(uuid.uuid4())
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO redrive_batches (id, trigger, requested_by, reason, selection, state,"
            " planned) VALUES (%s, %s, %s, %s, %s, 'planned', %s)",
            [batch_id, trigger, requested_by, reason, Jsonb(selection.as_json()), planned.count],
        )
        cursor.executemany(
            "INSERT INTO redrives (id, failure_id, attempt, batch_id, group_id, subject,"
            " addressed_to, state) VALUES (%s, %s, %s, %s, %s, %s, %s, 'planned')"
            " ON CONFLICT (failure_id, attempt) DO UPDATE SET batch_id = excluded.batch_id,"
            " state = 'planned', state_reason = NULL WHERE redrives.state = 'cancelled'",
            [
                [
                    redrive_id(failure, redrive_count + 1),
                    failure,
                    redrive_count + 1,
                    batch_id,
                    group,
                    subject,
                    consumer_address(stream, consumer),
                ]
                for failure, group, subject, stream, consumer, redrive_count, *_ in planned.rows
            ],
        )
    return batch_id


def _conditions(selection: Selection) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for failure in selection.failure_ids:
        if not is_uuid(failure):
            raise RedriveError(f"{failure!r} is no failure id: `dlq show GROUP` shows ids.")
    if selection.failure_ids:
        conditions.append("id = ANY(%s::uuid[])")
        values.append(list(selection.failure_ids))
    if selection.error_types:
        conditions.append("error_type = ANY(%s)")
        values.append(with_subclasses(selection.error_types))
    for column in ("group_id", "tenant_id"):
        if value := getattr(selection, column):
            conditions.append(f"{column} = %s")
            values.append(value)
    if selection.service:
        conditions.append("coalesce(consumer_service, source_service) = %s")
        values.append(selection.service)
    if not conditions:
        raise RedriveError(
            "Say what to redrive: failure ids, --group, --type, --service or --tenant."
        )
    condition = " AND ".join(conditions)
    if selection.due_at is not None:
        condition = f"(redrive_not_before <= %s OR redrive_not_before IS NULL AND {condition})"
        values.insert(0, selection.due_at)
    return condition, values
