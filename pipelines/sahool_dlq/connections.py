"""Opens all connections to the servers of the settings.

nats-py is imported when it is used: verbs that read only the lake start faster without it.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

from psycopg import Connection

from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database, locking
from sahool_dlq.stores.postgres.lock import Lock, LockName

if TYPE_CHECKING:
    from nats.aio.client import Client

    from sahool_dlq.jetstream.reader import LogState

__all__ = ["find_log", "open_lock", "open_nats", "open_postgres"]


def open_postgres(settings: Settings) -> AbstractContextManager[Connection[Any]]:
    """A connection to PostgreSQL, closed at the end; raises as `database` does."""
    return database(settings.postgres_dsn.get_secret_value())


def open_lock(
    settings: Settings, name: LockName, *, is_shared: bool = False
) -> AbstractContextManager[Lock]:
    """A lock that can be taken, on a separate connection to PostgreSQL."""
    return locking(settings.postgres_dsn.get_secret_value(), name, is_shared=is_shared)


def open_nats(
    settings: Settings, name: str, *, patience_seconds: float = 0
) -> AbstractAsyncContextManager[Client]:
    """A connection to NATS, closed at the end; `name` is for the server's list of connections.

    Raises as `connected` does.
    """
    from sahool_dlq.jetstream.connection import connected

    return connected(settings.access, name, patience_seconds=patience_seconds)


async def find_log(client: Client, settings: Settings) -> LogState:
    """The stream that holds the log, as it stands; raises as `log_state` does."""
    from sahool_dlq.jetstream.reader import log_state

    return await log_state(client, settings.dlq_stream, settings.subjects.log)
