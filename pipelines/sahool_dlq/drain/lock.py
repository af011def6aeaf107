"""One drain per database at a time: later ones wait, and end the session of a drain that hangs.

This only avoids wasted work. The checkpoint in PostgreSQL and the transaction in the lake protect
the data: a second writer fails on them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import Connection
from psycopg.errors import InsufficientPrivilege

from sahool_dlq.connections import open_lock
from sahool_dlq.errors import FencedError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.lock import Holder, Lock

logger = logging.getLogger(__name__)

_PROGRESS = "SELECT max(updated_at) FROM drain_checkpoints"


@asynccontextmanager
async def alone(
    settings: Settings, connection: Connection[Any], stream: str
) -> AsyncIterator[None]:
    """Hold the drain's lock; `connection` is for queries meanwhile.

    If the holder has moved no checkpoint for DLQ_DRAIN_LOCK_SECONDS, its session is ended (a
    stopped process holds its locks for ever). Raises FencedError if that is not allowed.
    """
    loop = asyncio.get_running_loop()
    seen, since, is_said = None, loop.time(), False
    with open_lock(settings, "drain") as lock:
        while not lock.take():
            holder = lock.holder()
            state = holder, connection.execute(_PROGRESS).fetchone()
            if state != seen:
                seen, since = state, loop.time()
            if holder is not None and not is_said:
                is_said = True
                logger.info("Another drain of %s runs, %s: waiting until it ends", stream, holder)
            elif holder is not None and loop.time() - since > settings.drain_lock_seconds:
                _end(lock, holder, stream)
                since = loop.time()
            await asyncio.sleep(0.2)
        yield


def _end(lock: Lock, holder: Holder, stream: str) -> None:
    logger.warning("Another drain of %s makes no progress: terminating its %s", stream, holder)
    try:
        is_ended = lock.end_holder(holder.pid)
    except InsufficientPrivilege:  # another user's session: docs/security.md
        is_ended = False
    if not is_ended:
        raise FencedError(
            f"Another drain of {stream} makes no progress, and its {holder} could not be"
            f" terminated: stop that process."
        )
