"""Redrives that are published according to the log, but that no outbox row follows.

This happens after a failover to a replica that lacks the latest outbox rows, and in a database that
was filled again from the lake. The failure is `retried`, and would stay so for ever.
"""

import json
import uuid
from typing import Any

from psycopg import Connection

from sahool_dlq.deadletter.cases import attempt_number
from sahool_dlq.deadletter.ids import redrive_id
from sahool_dlq.stores.postgres.addressees import ADDRESS
from sahool_dlq.stores.postgres.audit import audit

__all__ = ["follow_again", "has_unfollowed"]

_BY = "dlq redrive"
_REASON = "the log says that they were published, but no outcome was awaited"
_UNFOLLOWED = """
FROM failed_events f WHERE f.status = 'retried' AND NOT EXISTS (
    SELECT FROM redrives r WHERE r.failure_id = f.id AND r.state = 'published')
"""


def has_unfollowed(connection: Connection[Any]) -> bool:
    """Whether there are any, at the last drain."""
    return connection.execute(f"SELECT {_UNFOLLOWED} LIMIT 1").fetchone() is not None


def follow_again(connection: Connection[Any]) -> None:
    """Add them to the outbox as published, in a separate batch; call it with the redriver's lock.

    Each is then followed like any redrive. Drain before, because outcomes that are not drained
    would look like these.
    """
    with connection.transaction():
        found = connection.execute(
            "SELECT f.id::text, f.opening, f.redrive_count, coalesce(f.group_id, ''),"
            f" f.original_subject, f.announced, {ADDRESS} {_UNFOLLOWED}"
        ).fetchall()
        if not found:
            return
        batch_id = str(uuid.uuid4())
        connection.execute(
            "INSERT INTO redrive_batches (id, trigger, requested_by, reason, selection, state,"
            " planned) VALUES (%s, 'automatic', %s, %s, '{}', 'planned', %s)",
            [batch_id, _BY, _REASON, len(found)],
        )
        rows = []
        for failure_id, opening, count, group_id, subject, announced, address in found:
            attempt = attempt_number(opening, count + 1)
            ids = {number: id_ for id_, number in json.loads(announced or "{}").items()}
            key = [ids.get(attempt) or redrive_id(failure_id, attempt), failure_id, attempt]
            rows.append([*key, batch_id, group_id, subject, address])
        connection.cursor().executemany(
            "INSERT INTO redrives (id, failure_id, attempt, batch_id, group_id, subject,"
            " addressed_to, state, published_at) VALUES (%s, %s, %s, %s, %s, %s, %s, 'published',"
            " now()) ON CONFLICT (failure_id, attempt) DO UPDATE SET id = excluded.id,"
            " batch_id = excluded.batch_id, addressed_to = excluded.addressed_to,"
            " state = 'published', state_reason = NULL, published_at = now(), ended_at = NULL",
            rows,
        )
        audit(
            connection,
            "redrive.planned",
            actor=_BY,
            reason=_REASON,
            batch_id=batch_id,
            detail={"failures": len(rows)},
        )
