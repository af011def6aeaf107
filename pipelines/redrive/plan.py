"""Which failures to redrive, frozen as a batch in Postgres before anything is published."""

import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from pipelines.deadletter.ids import consumer_address, redrive_id
from pipelines.deadletter.record import BRIDGED_REASONS
from pipelines.redrive.selection import Selection


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
    where, values = selection.condition()
    by_id = bool(selection.failure_ids)
    states = ["pending", "parked"] if by_id else ["pending"]
    rows = connection.execute(
        "SELECT f.id::text, f.group_id, original_subject, original_stream, consumer_name,"  # noqa: S608
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
