"""A lock among all runs of the platform, also through a pooler.

It is the lock of a relation, in a transaction that stays open on a separate connection. So a pooler
in transaction mode keeps one session of the server for it, and the lock ends with the holder, the
connection or the server. The relation is a view without rows, which only the roles of the job may
lock. An advisory lock could be taken by anybody, and a row lock would give the transaction an id,
which blocks VACUUM. This transaction has neither an id nor a snapshot, and VACUUM ignores views.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg
from psycopg import Connection
from psycopg.errors import LockNotAvailable
from psycopg.sql import SQL, Identifier

from sahool_dlq.errors import FencedError
from sahool_dlq.stores.postgres.refusals import one_line

__all__ = ["Holder", "Lock", "LockName"]

logger = logging.getLogger(__name__)

LockName = Literal["migrate", "drain", "redrive", "marts", "alerts", "regroup"]

_SAID_AFTER_SECONDS = 2.0  # shorter waits are not reported
_LONGEST_SECONDS = 600.0
# The transaction is idle on purpose.
_PATIENCE = """
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')
"""
_HOLDER = """
SELECT l.pid, a.usename, a.application_name, a.xact_start
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.relation = to_regclass(%s)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.mode <> ALL (%s) AND l.pid <> pg_backend_pid() ORDER BY a.xact_start, l.pid LIMIT 1
"""
# Its process has other sessions, which may be in a transaction.
_END = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(o.pid)) FROM pg_stat_activity h
JOIN pg_stat_activity o ON o.pid = h.pid OR (o.datid = h.datid
    AND o.application_name = h.application_name
    AND h.application_name NOT IN ('', current_setting('application_name')))
WHERE h.pid = %s
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The session that holds a lock; `str` describes it."""

    pid: int  # of the server's process
    user: str | None
    application: str | None
    since: datetime | None  # None where this login may not see it

    def __str__(self) -> str:
        who = f"session {self.pid} of {self.user or 'a user that is gone'}"
        if self.application:
            who += f" ({self.application!r})"
        return who + (
            f", since {self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        )


class Lock:
    """A lock that can be taken once, by name, on a connection that nothing else uses.

    Shared locks are compatible with each other, and with no other.
    """

    def __init__(
        self, connection: Connection[Any], name: LockName, *, is_shared: bool = False
    ) -> None:
        self.name = name
        self._connection = connection
        self._relation = f"dlq.lock_{name}"
        self._harmless = ["AccessShareLock", *(["RowShareLock", "ShareLock"] if is_shared else [])]
        self._lock = SQL("LOCK TABLE {} IN {} MODE NOWAIT").format(
            Identifier("dlq", f"lock_{name}"), SQL("SHARE" if is_shared else "EXCLUSIVE")
        )
        self._pid: int | None = None  # of the server's session that holds it

    def take(self) -> bool:
        """Take it if nobody else holds it.

        Raises psycopg's InsufficientPrivilege for a login without the role, UndefinedTable if `dlq
        migrate` has not been run.
        """
        if self.holder() is not None:  # each refusal would be an error in the server's log
            return False
        self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            self._connection.execute(_PATIENCE)
            self._connection.execute(self._lock)
        except LockNotAvailable:
            self.release()
            return False
        except psycopg.Error:
            self.release()
            raise
        self._pid = self._session()
        return True

    def wait(self, what: str, alive: Callable[[], object] = lambda: None) -> None:
        """Take it; while another holds it, call `alive` five times a second.

        Raises FencedError after ten minutes; `what` names the waiting job.
        """
        started, is_said = time.monotonic(), False
        while not self.take():
            waited = time.monotonic() - started
            if waited > _LONGEST_SECONDS:
                raise FencedError(
                    f"{what} waited {_LONGEST_SECONDS:.0f} s for the lock of this database"
                    f" ({self.name}): {self.held_by()} has it. Wait for its end, or stop that"
                    " process; the next run continues."
                )
            if waited > _SAID_AFTER_SECONDS and not is_said:
                is_said = True
                logger.warning("%s waits: %s has the lock (%s)", what, self.held_by(), self.name)
            alive()
            time.sleep(0.2)

    def check(self) -> None:
        """Raise FencedError if it is no longer held, because its session was ended."""
        try:
            why = None if self._session() == self._pid else "the session is a different one now"
        except psycopg.Error as error:
            why = one_line(error)
        if why is not None:
            raise FencedError(
                f"The lock of this run ({self.name}) was lost ({why}): it stops because another"
                f" may have begun; the next run continues."
            )

    def release(self) -> None:
        """Release it; if its session was ended, it is already free."""
        if not self._connection.broken:
            self._connection.execute("ROLLBACK")

    def holder(self) -> Holder | None:
        """The holder, if another session holds it."""
        row = self._connection.execute(_HOLDER, [self._relation, self._harmless]).fetchone()
        return Holder(*row) if row else None

    def held_by(self) -> str:
        """The holder, for a sentence."""
        return str(self.holder() or "a process that has just ended")

    def end_holder(self, pid: int) -> bool:
        """End the sessions of the process that holds it; returns whether there were any.

        Raises psycopg's InsufficientPrivilege if that is not allowed.
        """
        row = self._connection.execute(_END, [pid]).fetchone()
        return row is not None and row[0] > 0

    def _session(self) -> int | None:
        row = self._connection.execute("SELECT pg_backend_pid()").fetchone()
        return row[0] if row else None
