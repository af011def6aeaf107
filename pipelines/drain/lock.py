"""One drain at a time: later ones wait, and end the session of one that is stuck.

This is courtesy. What protects the data is the checkpoint in Postgres and the transaction in the
lake, which a second writer fails on.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import Connection
from psycopg.errors import InsufficientPrivilege

from pipelines.errors import FencedError

logger = logging.getLogger(__name__)

_HOLDER = """
SELECT l.pid, c.updated_at FROM pg_locks l
LEFT JOIN drain_checkpoints c ON c.stream = %s
WHERE l.locktype = 'advisory' AND l.granted AND l.database = (
    SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = %s
"""


@asynccontextmanager
async def alone(
    connection: Connection[Any], stream: str, patience_seconds: float
) -> AsyncIterator[None]:
    """Hold the drain's lock on a stream.

    A holder that has not moved the checkpoint for `patience_seconds` (a stopped process holds its
    locks for ever) has its session ended. Raises FencedError where that is not allowed.
    """
    row = connection.execute("SELECT hashtextextended(%s, 0)", [f"dlq drain {stream}"]).fetchone()
    assert row is not None
    key = row[0]
    loop = asyncio.get_running_loop()
    seen, since = None, loop.time()
    while not _is_taken(connection, key):
        holder = connection.execute(_HOLDER, [stream, key]).fetchone()
        if holder != seen:
            seen, since = holder, loop.time()
        elif holder is not None and loop.time() - since > patience_seconds:
            _end(connection, holder[0], stream)
            since = loop.time()
        await asyncio.sleep(0.2)
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", [key])


def _is_taken(connection: Connection[Any], key: int) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
    return row == (True,)


def _end(connection: Connection[Any], pid: int, stream: str) -> None:
    logger.warning("Another drain of %s makes no progress: ending its session %d", stream, pid)
    try:
        ended = connection.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone()
    except InsufficientPrivilege:  # of another user's: docs/security.md
        ended = None
    if ended != (True,):
        raise FencedError(
            f"Another drain of {stream} makes no progress and its session {pid} could not be"
            " ended: stop that process."
        )
