"""PostgreSQL: connecting, locking and migrating."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, IsolationLevel
from psycopg.errors import Diagnostic

from sahool_dlq.errors import SchemaError, SettingsError
from sahool_dlq.sqlfiles import read_sql, sql_folder
from sahool_dlq.stores.postgres.lock import Lock, LockName
from sahool_dlq.stores.postgres.refusals import read_dsn, speaking_plainly, where

logger = logging.getLogger(__name__)

# psycopg also logs consequences of an error; configure logging to see them.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

_APPLICATION = (
    f"dlq {secrets.token_hex(4)}"  # whose session it is: this process's; see `end_holder`
)

# The settings that a session relies on, whatever those of server, database or user are. A pooler in
# transaction mode copies the first four from session to session; see docs/operations.md. Only their
# owner can create objects in the schemas of the path, so names are reliable; temporary tables,
# which anybody can create, come last. No wait for a lock is endless.
_SESSION = """
SET DateStyle = 'ISO, MDY';
SET TimeZone = 'UTC';
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET IntervalStyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;
SET default_transaction_isolation = 'read committed';
SET idle_session_timeout = 0;
SET search_path = pg_catalog, dlq, pg_temp;
SELECT set_config(name, '5min', false) FROM pg_settings
WHERE name = 'lock_timeout' AND setting = '0';
"""
_SCHEMA = "0000_schema"


@contextmanager
def database(dsn: str, *, is_checked: bool = True) -> Iterator[Connection[Any]]:
    """A connection in autocommit mode: each piece of work opens its own transaction.

    With `is_checked`, raises SchemaError if `dlq migrate` has not been run; SettingsError if `dsn`
    is not valid, or the database's encoding is not UTF8. Errors of the server become one of ours,
    in one sentence.
    """
    read_dsn(dsn)
    with speaking_plainly(dsn):
        connection = psycopg.connect(
            dsn,
            autocommit=True,
            connect_timeout=5,
            application_name=_APPLICATION,
            prepare_threshold=None,  # a pooler hands the session on, and another has its statements
        )
        with closing(connection):
            connection.isolation_level = IsolationLevel.READ_COMMITTED
            _check_encoding(connection, where(dsn))
            connection.execute(_SESSION)
            if is_checked:
                _check(connection)
            yield connection


@contextmanager
def locking(dsn: str, name: LockName, *, is_shared: bool = False) -> Iterator[Lock]:
    """A lock that can be taken, on a separate connection; it ends with this context."""
    with database(dsn, is_checked=False) as connection:
        lock = Lock(connection, name, is_shared=is_shared)
        try:
            yield lock
        finally:
            with suppress(psycopg.Error):  # it was lost: others can take it
                lock.release()


def migrate(dsn: str) -> list[str]:
    """Run the migrations that are missing in this database; returns their names.

    Each file is idempotent and can also be run with `psql -f`. Its warnings are logged.
    """
    with locking(dsn, "migrate") as lock, database(dsn, is_checked=False) as connection:
        done = []
        if _SCHEMA not in _applied(connection):  # it creates the lock, and waits for others itself
            _run(connection, _SCHEMA)
            done = [_SCHEMA]
        # Two services that start together must not migrate at once.
        lock.wait("dlq migrate")
        known = _applied(connection)
        pending = [name for name in migrations() if name not in known]
        for name in pending:
            _run(connection, name)
        return done + pending


def _run(connection: Connection[Any], name: str) -> None:
    file = f"postgres/migrations/{name}.sql"
    with _warning_of(connection, sql_folder() / file):
        connection.execute(read_sql(file))


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
    if connection.execute("SELECT to_regclass('dlq.schema_migrations')").fetchone() == (None,):
        return set()
    return {name for (name,) in connection.execute("SELECT name FROM dlq.schema_migrations")}


def _check(connection: Connection[Any]) -> None:
    missing = set(migrations()) - _applied(connection)
    if missing:
        raise SchemaError(
            f"The database {connection.info.dbname} lacks {', '.join(sorted(missing))}:"
            " run `dlq migrate`."
        )


def _check_encoding(connection: Connection[Any], server: str) -> None:
    """Other encodings cannot store every text of a dead letter, or have no character boundaries."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SettingsError(
            f"{server} has the encoding {encoding}, which cannot store every dead letter: create "
            "a database with ENCODING 'UTF8', name it in DLQ_POSTGRES_DSN and run `dlq "
            "migrate`; nothing was stored here, and NATS keeps the undrained messages."
        )
