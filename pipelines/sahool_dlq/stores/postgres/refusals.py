"""Errors of PostgreSQL as one sentence that says what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from sahool_dlq.errors import DLQError, SchemaError, ServerUnavailableError, SettingsError

__all__ = ["one_line", "read_dsn", "speaking_plainly", "where"]

_URI_BEGIN = re.compile(r"postgres(?:ql)?://")
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.%-]*)(?::\d{0,5})?"
_URI = re.compile(
    rf"{_URI_BEGIN.pattern}(?:[^/?#@]*@)?{_HOST}(?:,{_HOST})*(?:/[^/?#@]*)?(?:\?[^#]*)?"
)

# What the server did, and what to do, by SQLSTATE. Each ends a run, and nothing is lost.
_FOR_NOW = {
    "25006": "is read-only ({}): name the primary in DLQ_POSTGRES_DSN (of several hosts,"
    " target_session_attrs=read-write finds it)",
    "25P03": (
        "ended the session ({}): raise the limit for this user (`ALTER ROLE … SET "
        "idle_in_transaction_session_timeout`)"
    ),
    "25P04": (
        "ended the session ({}): raise the limit for this user (`ALTER ROLE … SET "
        "transaction_timeout`)"
    ),
    "40001": "rolled back a transaction ({}): others changed the same rows",
    "40P01": "rolled back a transaction ({}): others changed the same rows",
    "53300": (
        "has no connection left ({}): raise that limit, end unused sessions, or put a "
        "pooler in front of it (docs/operations.md)"
    ),
    "55P03": (
        "gave up waiting for a lock ({}): see who holds it (pg_blocking_pids), or raise the "
        "limit for this user (`ALTER ROLE … SET lock_timeout`)"
    ),
    "57014": (
        "gave up a statement ({}): see what keeps it busy, or raise the limit for this user "
        "(`ALTER ROLE … SET statement_timeout`)"
    ),
    "57P01": "ended the session ({}): see who stopped it, or ended its sessions",
    "57P02": "ended the session ({}): its log says why it crashed",
    "57P03": "accepts no sessions yet ({}): wait until it has started",
    "57P05": (
        "ended the session ({}): raise the limit for this user (`ALTER ROLE … SET "
        "idle_session_timeout`)"
    ),
}
# The same for errors with only a text: of a login, an ended session, a pooler.
_TEXTS = {
    r"session is read-only|session is not read-write": "25006",
    r"due to idle-in-transaction timeout": "25P03",
    r"due to transaction timeout": "25P04",
    r"too many c|remaining connection slots|max_client_conn": "53300",
    # The last two are psycopg's texts if a pooler's session ended while idle.
    r"due to administrator command|server closed the connection"
    r"|received 2 results|COPY cannot be mixed": "57P01",
    r"the database system is": "57P03",
    r"due to idle-session timeout": "57P05",
}
_FATAL = re.compile(r"FATAL: +(.*)")
_NO_DATABASE = re.compile(r'database "([^"]*)" does not exist|no such database: (\S+)')
_NO_SERVICE = re.compile(r'definition of service "([^"]*)" not found|service file .* not found')
# An outage of an encrypted session does not count here.
_TLS = re.compile(r"certificate|SSL (?!SYSCALL|connection has been closed)|TLS", re.I)
_POOL = re.compile(r"query_wait_timeout|query_timeout|server_login_retry|pooling mode", re.I)


@contextmanager
def speaking_plainly(dsn: str) -> Iterator[None]:
    """Convert psycopg's errors to ours."""
    try:
        yield
    except psycopg.Error as error:
        raise _ours(where(dsn), error) from error
    except UnicodeDecodeError as error:
        raise DLQError(
            f"{where(dsn)} contains text that is not UTF-8 ({error.reason} in"
            f" {error.object[:40]!r}): find out who wrote it; this platform writes only UTF-8."
        ) from error


def where(dsn: str) -> str:
    """The server and database of a connection string, without its password.

    What the string leaves out the usual variables (`PGHOST`, …) and the service of `PGSERVICE` say.
    """
    try:
        parts = read_dsn(dsn)
    except SettingsError:
        return "PostgreSQL"
    if "service" in parts and "host" not in parts:
        return f"PostgreSQL of the service {parts['service']}"
    usual = {
        each.keyword.decode(): each.val.decode() for each in Conninfo.get_defaults() if each.val
    }
    host = parts.get("host") or usual.get("host", "localhost")
    port = parts.get("port") or usual.get("port", "5432")
    database = parts.get("dbname") or (usual.get("dbname", "") if "host" not in parts else "")
    return f"PostgreSQL at {host}:{port}/{database}"


def read_dsn(dsn: str) -> dict[str, str]:
    """The parts of a connection string.

    Raises SettingsError, which says nothing of the string, where it is none, or libpq would take
    some of its password for the host, the port or the database, and name it in its errors.
    """
    try:
        if _URI_BEGIN.match(dsn) and not _URI.fullmatch(dsn):
            raise ValueError
        return {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except (
        psycopg.ProgrammingError,
        ValueError,
    ):  # the first contains the string, with its password
        raise SettingsError(
            "DLQ_POSTGRES_DSN is not valid: give it as postgresql://user@host:5432/database, and"
            " percent-encode special characters in the password (%40 for @)."
        ) from None


def one_line(error: psycopg.Error) -> str:
    """What the server says, else what the driver does."""
    text = str(error).strip()
    said = _FATAL.search(text)
    lines = [said[1]] if said else text.splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def _ours(server: str, error: psycopg.Error) -> DLQError:
    text, said = str(error), one_line(error)
    if isinstance(error, (errors.UndefinedTable, errors.InvalidSchemaName)):
        return SchemaError(
            f"{server} has no tables of this platform, or this login does not find them ({said}):"
            " run `dlq migrate`; behind a pooler see search_path in docs/operations.md."
        )
    if isinstance(error, errors.DiskFull):
        return ServerUnavailableError(
            f"The disk of {server} is full, so the last transaction was rolled back: free some"
            f" space; the next run continues."
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return DLQError(
            f"{server} refused: {said}: grant it, or use a user with a role that"
            " has that right (docs/security.md)."
        )
    state = error.sqlstate or next((s for t, s in _TEXTS.items() if re.search(t, text)), None)
    if state in _FOR_NOW:
        return ServerUnavailableError(
            f"{server} {_FOR_NOW[state].format(said)}; the next run continues."
        )
    if not isinstance(error, psycopg.OperationalError):
        return DLQError(f"{server} refused: {said}.")
    if missing := _NO_DATABASE.search(text):
        name = missing[1] or missing[2]
        return ServerUnavailableError(
            f"{server}: there is no database {name}: create it (CREATE DATABASE … ENCODING "
            "'UTF8'), or name another in DLQ_POSTGRES_DSN."
        )
    if _POOL.search(text):
        return ServerUnavailableError(
            f"The pooler in front of {server} refused ({said}): docs/operations.md says how to "
            "configure it."
        )
    if _NO_SERVICE.search(text):
        return SettingsError(
            f"{server} is in no service file ({said}): check PGSERVICEFILE, ~/.pg_service.conf, and"
            " service in DLQ_POSTGRES_DSN or PGSERVICE."
        )
    # The name of the server, which may contain any word, comes before.
    if _TLS.search(text.rpartition("failed: ")[2]) and not _FATAL.search(text):
        return ServerUnavailableError(
            f"{server} cannot be reached with the requested TLS ({said}): check sslmode, "
            "sslrootcert, sslcert and sslkey in DLQ_POSTGRES_DSN, or PGSSLMODE and the related "
            "variables."
        )
    if _FATAL.search(text) and error.sqlstate is None:
        return ServerUnavailableError(
            f"{server} refuses the login ({said}): check user, password and database in"
            f" DLQ_POSTGRES_DSN."
        )
    return ServerUnavailableError(
        f"{server} does not answer ({said}): start it, run `dlq up`, or set DLQ_POSTGRES_DSN."
    )
