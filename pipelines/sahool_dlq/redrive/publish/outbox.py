"""The outbox of redrives in PostgreSQL, for the redriver: one row per attempt."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import Connection

from sahool_dlq.deadletter.cases import opening_and_nth
from sahool_dlq.deadletter.record import BRIDGED_REASONS
from sahool_dlq.deadletter.replays import ReplayedEvent
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.stores.postgres.addressees import FAILED_AT

__all__ = ["Outbox", "Redrive", "load_redrives"]


@dataclass(frozen=True, slots=True)
class Redrive:
    """One attempt of a batch."""

    id: str
    failure_id: str
    attempt: int
    group_id: str
    addressed_to: str | None
    dlq_sequence: int | None
    dead_lettered_at: datetime | None  # the server's time of the dead letter
    silent_seconds: float | None  # since a killed run published it; None where none has
    is_foreign: bool  # its consumer may not use our library and then reports no success
    service: str
    error_type: str
    error_message: str
    subject: str  # that its event goes to
    replayed: ReplayedEvent | None = None  # None: it is the event of a dead letter

    @property
    def is_out(self) -> bool:
        """Whether it was published before."""
        return self.silent_seconds is not None

    @property
    def opening(self) -> int:
        """The opening of its case for which it was planned."""
        return opening_and_nth(self.attempt)[0]

    @property
    def nth(self) -> int:
        """1 for the first of its opening."""
        return opening_and_nth(self.attempt)[1]


class Outbox:
    """The rows of one batch."""

    def __init__(self, connection: Connection[Any], batch: Batch) -> None:
        self._connection = connection
        self._batch_id = batch.id
        by_id = bool(batch.selection.get("failure_ids"))
        self._statuses = ["pending", "parked"] if by_id else ["pending"]

    def claim(self, redrive: Redrive) -> str | None:
        """Take a redrive from the outbox, if its batch still runs and its failure still waits: its
        status.
        """
        claimed = self._connection.execute(
            "UPDATE redrives r SET state = 'published', published_at = now()"
            " FROM redrive_batches b, redrive_roots f WHERE r.id = %s AND r.state = 'planned'"
            " AND r.batch_id = %s AND b.id = r.batch_id AND b.state = 'running'"
            " AND f.id = r.failure_id AND f.opening = %s AND f.status = ANY(%s) RETURNING f.status",
            [redrive.id, self._batch_id, redrive.opening, self._statuses],
        ).fetchone()
        return claimed[0] if claimed else None

    def is_wanted(self, redrive: Redrive) -> bool:
        """Whether a published one may still be sent: its batch runs, its failure waits."""
        found = self._connection.execute(
            "SELECT FROM redrives r JOIN redrive_batches b ON b.id = r.batch_id"
            " JOIN redrive_roots f ON f.id = r.failure_id WHERE r.id = %s AND b.id = %s"
            " AND r.state = 'published' AND b.state = 'running' AND f.opening = %s"
            " AND f.status = ANY(%s)",
            [redrive.id, self._batch_id, redrive.opening, [*self._statuses, "retried"]],
        ).fetchone()
        return found is not None

    def release(self, redrive: Redrive) -> None:
        """Put a redrive back that was taken and certainly not published."""
        self._connection.execute(
            "UPDATE redrives SET state = 'planned', published_at = NULL"
            " WHERE id = %s AND batch_id = %s AND state = 'published'",
            [redrive.id, self._batch_id],
        )

    def status_of(self, redrive: Redrive) -> str:
        """The status of the failure; `reopened` if its case was closed since planning."""
        row = self._connection.execute(
            "SELECT CASE WHEN opening > %s THEN 'reopened' ELSE status END FROM redrive_roots"
            " WHERE id = %s",
            [redrive.opening, redrive.failure_id],
        ).fetchone()
        return row[0] if row else "gone"

    def cancel(self, redrive: Redrive, reason: str | None) -> bool:
        """Cancel a redrive, unless it was published or ended meanwhile."""
        cancelled = self._connection.execute(
            "UPDATE redrives SET state = 'cancelled', state_reason = %s, ended_at = now()"
            " WHERE id = %s AND batch_id = %s AND state = 'planned'",
            [reason, redrive.id, self._batch_id],
        )
        return cancelled.rowcount == 1

    def mark(self, redrive: Redrive, state: str, reason: str | None) -> None:
        """Store the outcome of a redrive."""
        self._connection.execute(
            "UPDATE redrives SET state = %s, state_reason = %s, ended_at = now()"
            " WHERE id = %s AND batch_id = %s AND state IN ('planned', 'published')",
            [state, reason, redrive.id, self._batch_id],
        )


def load_redrives(connection: Connection[Any], batch_id: str) -> list[Redrive]:
    """The remaining redrives of a batch: first those published by a killed run, then the oldest."""
    rows = connection.execute(
        "SELECT r.id::text, r.failure_id::text, r.attempt, coalesce(r.group_id, ''),"  # noqa: S608  (our own names, bound values)
        " r.addressed_to, f.dlq_sequence, f.published_at,"
        " CASE WHEN r.state = 'published' THEN extract(epoch FROM now() - r.published_at)::float8"
        f" END, f.dlq_reason = ANY(%s) OR r.addressed_to IS DISTINCT FROM {FAILED_AT}, f.service,"
        " f.error_type, left(f.error_message, 500), r.subject,"
        " f.id::text, f.replay_of::text, r.addressed_to, f.event_stream, f.event_sequence,"
        " f.event_timestamp_ns"
        " FROM redrives r JOIN redrive_roots f ON f.id = r.failure_id"
        " WHERE r.batch_id = %s AND r.state IN ('planned', 'published')"
        " ORDER BY (r.state = 'planned'), f.dlq_timestamp, r.id",
        [list(BRIDGED_REASONS), batch_id],
    )
    return [
        replace(Redrive(*row[:-6]), replayed=ReplayedEvent(*row[-6:]) if row[-5] else None)
        for row in rows
    ]
