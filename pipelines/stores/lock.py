"""A lock among all runs of the platform, also of those that reach PostgreSQL through a pooler.

It is an advisory lock of a transaction that stays open on a connection of its own: a pooler in
transaction mode keeps one session of the server for it as long, and whatever ends the holder, the
connection or the server ends the lock with it. The transaction holds no snapshot, so it holds up
no VACUUM.
"""

from typing import Any

import psycopg
from psycopg import Connection

from pipelines.errors import FencedError
from pipelines.stores.refusals import one_line

__all__ = ["Lock"]

_KEY = "hashtextextended(%s, 0)"
# The transaction is meant to be idle.
_PATIENCE = """
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')
"""
_HOLDER = f"""
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (
    SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32) | objid::bigint = {_KEY}
"""  # noqa: S608
# Its process has others, which may be amid a transaction.
_END = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(o.pid)) FROM pg_stat_activity h
JOIN pg_stat_activity o ON o.pid = h.pid OR (o.datid = h.datid
    AND o.application_name = h.application_name
    AND h.application_name NOT IN ('', current_setting('application_name')))
WHERE h.pid = %s
"""


class Lock:
    """A lock that can be taken once, by name, on a connection that nothing else uses."""

    def __init__(self, connection: Connection[Any], name: str, *, is_shared: bool = False) -> None:
        self.name = name
        self._connection = connection
        self._try = f"SELECT pg_try_advisory_xact_lock{'_shared' if is_shared else ''}({_KEY})"
        self._pid: int | None = None  # of the server's session that holds it

    def take(self) -> bool:
        """Take it unless another holds it."""
        self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        self._connection.execute(_PATIENCE)
        if self._connection.execute(self._try, [self.name]).fetchone() != (True,):
            self.release()
            return False
        self._pid = self._session()
        return True

    def check(self) -> None:
        """Raise FencedError where it is no longer held: its session was ended."""
        try:
            why = None if self._session() == self._pid else "it is another session now"
        except psycopg.Error as error:
            why = one_line(error)
        if why is not None:
            raise FencedError(
                f"The lock of this run ({self.name}) was lost ({why}): it stops, since another may"
                " have begun; the next run goes on."
            )

    def release(self) -> None:
        """Let others have it; one whose session was ended is free already."""
        if not self._connection.broken:
            self._connection.execute("ROLLBACK")

    def holder(self) -> int | None:
        """The server's process that holds it, where another does."""
        row = self._connection.execute(_HOLDER, [self.name]).fetchone()
        return row[0] if row else None

    def end_holder(self, pid: int) -> bool:
        """End the sessions of the process that holds it; whether there were any.

        Raises psycopg's InsufficientPrivilege where that is not allowed.
        """
        row = self._connection.execute(_END, [pid]).fetchone()
        return row is not None and row[0] > 0

    def _session(self) -> int | None:
        row = self._connection.execute("SELECT pg_backend_pid()").fetchone()
        return row[0] if row else None
