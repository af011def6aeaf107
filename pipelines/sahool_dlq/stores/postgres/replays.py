"""The table `replays`: events that are published again for one consumer."""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from psycopg import Connection

from sahool_dlq.deadletter.cases import Case
from sahool_dlq.deadletter.replays import ReplayedEvent

__all__ = ["known_replays", "store_announced", "store_replays", "waiting_replays"]


def store_replays(
    connection: Connection[Any], replays: Iterable[ReplayedEvent], service: str | None = None
) -> None:
    """Add them, in the caller's transaction; `service` is that of their consumer."""
    rows = [[*replay, service] for replay in replays]
    if rows:
        connection.cursor().executemany(
            "INSERT INTO replays (id, replay_of, consumer, stream, sequence, timestamp_ns, service)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
            rows,
        )


def waiting_replays(connection: Connection[Any], keys: Collection[str]) -> set[str]:
    """Those of these events (failure ids at their consumer) that are in a replay that waits."""
    rows = connection.execute(
        "SELECT p.replay_of::text FROM replays p JOIN redrives r ON r.failure_id = p.id"
        " WHERE p.replay_of = ANY(%s::uuid[]) AND r.state IN ('planned', 'published')",
        [list(keys)],
    )
    return {key for (key,) in rows}


def known_replays(connection: Connection[Any], ids: Collection[str]) -> dict[str, Case]:
    """Those of these ids, as cases that check who may report their outcome."""
    if not ids:
        return {}
    rows = connection.execute(
        "SELECT id::text, consumer, announced FROM replays WHERE id = ANY(%s::uuid[])",
        [f"{{{','.join(ids)}}}"],
    )
    return {
        replay: Case(replay, consumer=consumer, announced=json.loads(announced), is_replay=True)
        for replay, consumer, announced in rows
    }


def store_announced(connection: Connection[Any], replays: Sequence[Case]) -> None:
    """Store which of their redrives the log has."""
    if replays:
        connection.cursor().executemany(
            "UPDATE replays SET announced = %s WHERE id = %s",
            [[json.dumps(dict(replay.announced or {})), replay.failure_id] for replay in replays],
        )
