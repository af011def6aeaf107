"""The audit: who did what to which failures, why, and with which result. Rows are only added."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

__all__ = ["CHANNEL", "audit", "audited"]

CHANNEL: ContextVar[str | None] = ContextVar("channel", default=None)
"""How an actor came here, for the detail of each row: http, mcp; None for the command and flows."""


def audit(
    connection: Connection[Any],
    action: str,
    *,
    actor: str,
    reason: str | None = None,
    batch_id: str | None = None,
    failure_ids: Sequence[str] = (),
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add a row, in the caller's transaction if there is one. `detail` must be redacted."""
    channel = CHANNEL.get()
    told = {**(detail or {}), **({"channel": channel} if channel else {})}
    connection.execute(
        "INSERT INTO audit_log (actor, action, reason, batch_id, failure_ids, detail)"
        " VALUES (%s, %s, %s, %s, %s::uuid[], %s)",
        [actor, action, reason, batch_id, list(failure_ids), Jsonb(told)],
    )


def audited(
    connection: Connection[Any],
    *,
    about: str | None = None,
    group: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The latest rows, newest first; `about` is a failure or a batch, `action` may be a prefix.

    `group` is the id of a group that people own.
    """
    return (
        connection.cursor(row_factory=dict_row)
        .execute(
            "SELECT a.at, a.actor, a.action, a.reason, a.batch_id::text, a.failure_ids::text[],"
            " a.detail, a.db_user FROM audit_log a WHERE (%(about)s::uuid IS NULL"
            "   OR a.batch_id = %(about)s OR %(about)s = ANY(a.failure_ids) OR a.batch_id IN"
            "   (SELECT batch_id FROM redrives WHERE failure_id = %(about)s))"
            " AND (%(group)s::text IS NULL OR a.detail->>'group' = %(group)s)"
            " AND (%(actor)s::text IS NULL OR a.actor = %(actor)s)"
            " AND (%(action)s::text IS NULL OR starts_with(a.action, %(action)s))"
            " ORDER BY a.id DESC LIMIT %(limit)s",
            {"about": about, "group": group, "actor": actor, "action": action, "limit": limit},
        )
        .fetchall()
    )
