"""Batches of redrives: the request, the state, and the allowed changes of state.

    planned ──▶ running ⇄ paused
       │        ▲   │        │
       ▼        │   ├──▶ done, aborted (a group was stopped)
    awaiting_approval
                all of the four above ──▶ cancelled

Every change of state goes through `move`, and is in the audit. A batch that has ended has no
planned redrive, because that would block its failure for ever.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg import Connection
from psycopg.rows import dict_row

from sahool_dlq.deadletter.replays import REPLAY
from sahool_dlq.errors import RedriveError, UnknownNameError
from sahool_dlq.redrive.edit.patch import edit_of
from sahool_dlq.stores.postgres.audit import audit

__all__ = [
    "ENDED",
    "TRANSITIONS",
    "Batch",
    "BatchState",
    "batches",
    "find_batch",
    "finish",
    "move",
    "unfinished_batches",
]

BatchState = Literal[
    "planned", "awaiting_approval", "running", "paused", "done", "aborted", "cancelled"
]
TRANSITIONS: dict[str, tuple[BatchState, ...]] = {
    "planned": ("awaiting_approval", "running", "cancelled"),
    "awaiting_approval": ("running", "cancelled"),
    "running": ("paused", "done", "aborted", "cancelled"),
    "paused": ("running", "cancelled"),
}
ENDED = ("done", "aborted", "cancelled")


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch with its current state."""

    id: str
    kind: str  # redrive, or replay of events that did not fail
    trigger: str  # automatic | manual
    requested_by: str
    reason: str
    selection: Mapping[str, Any]
    state: BatchState
    state_reason: str | None
    planned: int  # failures when it was frozen
    redirect_to: str | None  # subject to publish to, instead of the original one
    patch: Any  # their edit, see `Edit.stored`; not redacted
    per_second: float | None  # that a person asked for
    max_age_seconds: float | None  # maximum age of an event
    own_copy: bool  # whether the copy of a dead letter may be published, too
    created_at: datetime
    ended_at: datetime | None
    outcomes: dict[str, int] = field(default_factory=dict)  # redrives by state

    @property
    def doing(self) -> str:
        """What a run of it does, as one word."""
        return "Replaying" if self.kind == REPLAY else "Redriving"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; of an edit only the names, because it is not redacted."""
        return {**asdict(self), "patch": edit_of(self.patch).names() if self.patch else None}


_COLUMNS = (
    "b.id::text, b.kind, b.trigger, b.requested_by, b.reason, b.selection, b.state, b.state_reason,"
    " b.planned, b.redirect_to, b.patch, b.per_second, b.max_age_seconds, b.own_copy,"
    " b.created_at, b.ended_at"
)


def find_batch(connection: Connection[Any], prefix: str) -> Batch:
    """The batch whose id begins with this; raises UnknownNameError for none, RedriveError for
    several."""
    rows = (
        connection.cursor(row_factory=dict_row)
        .execute(
            f"SELECT {_COLUMNS} FROM redrive_batches b WHERE starts_with(b.id::text, lower(%s))"  # noqa: S608  (our own names, bound values)
            " LIMIT 2",
            [prefix],
        )
        .fetchall()
    )
    if not rows or not prefix:
        raise UnknownNameError(f"There is no batch {prefix!r}: `dlq batches` lists them.")
    if len(rows) > 1:
        raise RedriveError(f"Several batches begin with {prefix!r}: give more of the id.")
    return _with_outcomes(connection, rows)[0]


def batches(connection: Connection[Any], limit: int = 20) -> list[Batch]:
    """The latest batches, newest first, after those that have not ended."""
    rows = (
        connection.cursor(row_factory=dict_row)
        .execute(
            f"SELECT {_COLUMNS} FROM redrive_batches b"  # noqa: S608  (our own names, bound values)
            " ORDER BY (b.state = ANY(%s)), b.created_at DESC LIMIT %s",
            [list(ENDED), limit],
        )
        .fetchall()
    )
    return _with_outcomes(connection, rows)


def unfinished_batches(connection: Connection[Any]) -> list[str]:
    """Batches that a killed run left, or that no run has started, oldest first.

    Also ended and paused ones with a published redrive without outcome: nothing else would follow
    it.
    """
    rows = connection.execute(
        "SELECT b.id::text FROM redrive_batches b WHERE b.state IN ('planned', 'running')"
        " OR (b.state = ANY(%s) AND EXISTS (SELECT FROM redrives r"
        "   JOIN redrive_roots f ON f.id = r.failure_id"
        "   WHERE r.batch_id = b.id AND r.state = 'published')) ORDER BY b.created_at",
        [["paused", *ENDED]],
    )
    return [row[0] for row in rows]


def move(
    connection: Connection[Any],
    batch_id: str,
    to: BatchState,
    *,
    actor: str,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Change the state of a batch; if it ends, unpublished redrives are cancelled.

    Raises RedriveError, without a change, if its state does not allow this.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT state FROM redrive_batches WHERE id = %s FOR UPDATE", [batch_id]
        ).fetchone()
        state = row[0] if row else "unknown"
        if to not in TRANSITIONS.get(state, ()):
            raise RedriveError(f"The batch {batch_id} is {state}: it cannot become {to}.")
        connection.execute(
            "UPDATE redrive_batches SET state = %s, state_reason = %s,"
            " ended_at = CASE WHEN %s THEN now() END WHERE id = %s",
            [to, reason, to in ENDED, batch_id],
        )
        if to in ENDED:
            by_whom = f"the batch was cancelled by {actor}"
            connection.execute(
                "UPDATE redrives SET state = 'cancelled', state_reason = %s, ended_at = now()"
                " WHERE batch_id = %s AND state = 'planned'",
                [by_whom if to == "cancelled" else "its failure no longer exists", batch_id],
            )
        audit(
            connection,
            f"redrive.{to}",
            actor=actor,
            reason=reason,
            batch_id=batch_id,
            detail=detail,
        )


def finish(
    connection: Connection[Any],
    batch_id: str,
    to: BatchState,
    *,
    actor: str,
    reason: str | None,
    detail: Mapping[str, Any],
) -> BatchState:
    """End a batch that still runs; returns its new state.

    It stays `running` if redrives are still planned: somebody paused and resumed it.
    """
    with connection.transaction():
        connection.execute("SELECT FROM redrive_batches WHERE id = %s FOR UPDATE", [batch_id])
        state = find_batch(connection, batch_id).state
        if state != "running":  # somebody paused or cancelled it
            return state
        planned = connection.execute(
            "SELECT FROM redrives r JOIN redrive_roots f ON f.id = r.failure_id"
            " WHERE r.batch_id = %s AND r.state = 'planned' LIMIT 1",
            [batch_id],
        ).fetchone()
        if planned is not None:
            return state
        move(connection, batch_id, to, actor=actor, reason=reason, detail=detail)
    return to


def _with_outcomes(connection: Connection[Any], rows: list[dict[str, Any]]) -> list[Batch]:
    outcomes: dict[str, Counter[str]] = {row["id"]: Counter() for row in rows}
    found = connection.execute(
        "SELECT batch_id::text, state, count(*) FROM redrives WHERE batch_id = ANY(%s::uuid[])"
        " GROUP BY 1, 2 ORDER BY 3 DESC",
        [list(outcomes)],
    )
    for batch_id, state, count in found:
        outcomes[batch_id][state] = count
    return [Batch(**row, outcomes=dict(outcomes[row["id"]])) for row in rows]
