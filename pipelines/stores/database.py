"""Postgres: connecting, migrating, and one sentence for whatever goes wrong."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import Diagnostic

from pipelines.errors import DLQError, SchemaError, ServerUnavailableError, SettingsError
from pipelines.sqlfiles import read_sql, sql_folder

logger = logging.getLogger(__name__)

# psycopg logs what comes of an error besides; who wants it can configure logging.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# To a login; one that is starting, stopping or full will answer later.
_REFUSED = re.compile(r"failed: FATAL: +(?!the database system|sorry|remaining)(.*)")


@contextmanager
def database(dsn: str, *, is_checked: bool = True) -> Iterator[Connection[Any]]:
    """A connection, in autocommit mode: each piece of work opens its own transaction.

    With `is_checked`, raises SchemaError where `dlq migrate` has not been run; SettingsError where
    `dsn` is none. Errors of the server come out as one of ours, in one sentence.
    """
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:  # says the string, with its password
        raise SettingsError(
            "DLQ_POSTGRES_DSN makes no sense: give it as postgresql://user@host:5432/database."
        ) from error
    with speaking_plainly(dsn):
        connection = psycopg.connect(
            dsn, autocommit=True, connect_timeout=5, application_name="dlq"
        )
        with connection:
            connection.execute("SET TimeZone = 'UTC'")
            if is_checked:
                _check(connection)
            yield connection


@contextmanager
def speaking_plainly(dsn: str) -> Iterator[None]:
    """Turn psycopg's errors into ours."""
    try:
        yield
    except errors.UndefinedTable as error:
        raise SchemaError(
            f"{where(dsn)} has no tables of this platform: run `dlq migrate`."
        ) from error
    except errors.DiskFull as error:
        raise ServerUnavailableError(
            f"The disk of {where(dsn)} is full: its last transaction was undone; make room, and"
            " the next run goes on."
        ) from error
    except errors.InsufficientPrivilege as error:
        raise DLQError(
            f"{where(dsn)} refused: {_first_line(error)}: grant it, or use a user with a role that"
            " has that right (docs/security.md)."
        ) from error
    except psycopg.OperationalError as error:
        if refused := _REFUSED.search(_first_line(error)):
            raise ServerUnavailableError(
                f"{where(dsn)} refuses the login ({refused[1]}): see user, password and database"
                " in DLQ_POSTGRES_DSN."
            ) from error
        raise ServerUnavailableError(
            f"{where(dsn)} does not answer ({_first_line(error)}): start it, run `dlq up`, or set"
            " DLQ_POSTGRES_DSN."
        ) from error
    except psycopg.Error as error:
        raise DLQError(f"{where(dsn)} refused: {_first_line(error)}.") from error


def where(dsn: str) -> str:
    """The server and database of a connection string, without its password."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "PostgreSQL"
    host, port = parts.get("host", "localhost"), parts.get("port", 5432)
    return f"PostgreSQL at {host}:{port}/{parts.get('dbname', '')}"


def migrate(dsn: str) -> list[str]:
    """Run the migrations that this database has not had; returns their names.

    Each file is idempotent and runs with `psql -f` as well. What it warns of is logged.
    """
    with database(dsn, is_checked=False) as connection:
        # Two services that start together must not migrate at once.
        connection.execute("SELECT pg_advisory_lock(hashtext('dlq migrate'))")
        known = _applied(connection)
        pending = [name for name in migrations() if name not in known]
        for name in pending:
            file = f"postgres/migrations/{name}.sql"
            with _warning_of(connection, sql_folder() / file):
                connection.execute(read_sql(file))
        return pending


def migrations() -> list[str]:
    """The names of all migrations, in order."""
    return sorted(file.stem for file in (sql_folder() / "postgres" / "migrations").glob("*.sql"))


@contextmanager
def _warning_of(connection: Connection[Any], file: Path) -> Iterator[None]:
    def warn(said: Diagnostic) -> None:
        if said.severity_nonlocalized == "WARNING":
            logger.warning("%s: %s", file, said.message_primary)

    connection.add_notice_handler(warn)
    try:
        yield
    finally:
        connection.remove_notice_handler(warn)


def _applied(connection: Connection[Any]) -> set[str]:
    if connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,):
        return set()
    return {name for (name,) in connection.execute("SELECT name FROM schema_migrations")}


def _check(connection: Connection[Any]) -> None:
    missing = set(migrations()) - _applied(connection)
    if missing:
        raise SchemaError(
            f"The database {connection.info.dbname} lacks {', '.join(sorted(missing))}:"
            " run `dlq migrate`."
        )


def _first_line(error: psycopg.Error) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__
