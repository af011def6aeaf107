"""Each refusal of a real PostgreSQL is reported in one fitting sentence."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from sahool_dlq.embedded import PostgresServer
from sahool_dlq.errors import DLQError, ServerUnavailableError
from sahool_dlq.stores.postgres.database import database, locking
from support.pooler import needs_pgbouncer, pooled


@pytest.fixture
def admin(database_dsn: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.held (n int)")
        yield connection


def end(admin: Connection[Any], connection: Connection[Any]) -> None:
    """Terminate an idle session, and wait until it is gone."""
    [pid] = connection.execute("SELECT pg_backend_pid()").fetchone()
    admin.execute("SELECT pg_terminate_backend(%s)", [pid])
    gone(admin, pid)


def gone(admin: Connection[Any], pid: int) -> None:
    deadline = time.monotonic() + 30
    while admin.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).rowcount:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def idle_in_transaction(admin: Connection[Any], connection: Connection[Any]) -> None:
    with connection.transaction():
        [pid] = connection.execute("SELECT pg_backend_pid()").fetchone()
        gone(admin, pid)
        connection.execute("SELECT 1")


def waiting(admin: Connection[Any], connection: Connection[Any]) -> None:
    with admin.transaction():
        admin.execute("LOCK held")
        connection.execute("SELECT * FROM public.held")


def ended(admin: Connection[Any], connection: Connection[Any]) -> None:
    end(admin, connection)
    with connection.transaction():
        connection.execute("SELECT 1")


def asleep(_: Connection[Any], connection: Connection[Any]) -> None:
    connection.execute("SELECT pg_sleep(60)")


def writing(_: Connection[Any], connection: Connection[Any]) -> None:
    connection.execute("INSERT INTO public.held VALUES (1)")


SESSIONS = {
    "statement_timeout": ("200ms", asleep, "gave up a statement .*: see what keeps it busy"),
    "lock_timeout": ("200ms", waiting, "gave up waiting for a lock .*pg_blocking_pids"),
    "idle_in_transaction_session_timeout": (
        "200ms",
        idle_in_transaction,
        "ended the session .*: raise the limit for this user",
    ),
    "default_transaction_read_only": ("on", writing, "is read-only .*: name the primary"),
    "application_name": ("any", ended, "ended the session .*: see who stopped it"),
}


@pytest.mark.parametrize("setting", SESSIONS)
def test_what_ends_a_statement_or_a_session_is_said_as_it_is(
    admin: Connection[Any], database_dsn: str, setting: str
) -> None:
    value, act, said = SESSIONS[setting]
    admin.execute(f"ALTER DATABASE {admin.info.dbname} SET {setting} = '{value}'")
    with (
        pytest.raises(ServerUnavailableError, match=said) as raised,
        database(database_dsn, is_checked=False) as connection,
    ):
        act(admin, connection)
    assert "the next run continues" in str(raised.value)
    assert "start it" not in str(raised.value)
    if setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        assert f"SET {setting}`" in str(raised.value)


def test_a_server_without_a_connection_left_says_so(
    admin: Connection[Any], database_dsn: str
) -> None:
    name = admin.info.dbname
    admin.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 0")
    try:
        crowded = database_dsn.replace("postgres@", f"{name}@")
        sentence = f'has no connection left .too many connections for role "{name}".: raise that'
        with pytest.raises(ServerUnavailableError, match=sentence), database(crowded):
            pass
    finally:
        admin.execute(f"DROP ROLE {name}")


def test_every_connection_of_a_server_taken_is_not_a_server_that_is_down(
    postgres_server_factory: Callable[..., PostgresServer],
) -> None:
    server = postgres_server_factory()
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(psycopg.connect(server.dsn))
        with (
            pytest.raises(ServerUnavailableError, match=r"no connection left \(sorry, too many cl"),
            database(server.dsn),
        ):
            pass


def test_a_database_that_is_not_there_is_to_be_made(database_dsn: str) -> None:
    other = f"{database_dsn}_other"
    with (
        pytest.raises(
            ServerUnavailableError, match=r"there is no database test_\w+_other: create it"
        ),
        database(other),
    ):
        pass


@needs_pgbouncer
def test_a_pooled_session_that_is_ended_while_idle_is_transient(
    admin: Connection[Any], database_dsn: str, tmp_path: Path
) -> None:
    def copy(connection: Connection[Any]) -> None:
        end(admin, connection)
        with connection.cursor().copy("COPY public.held FROM STDIN") as to:
            to.write_row([1])

    def transact(connection: Connection[Any]) -> None:
        end(admin, connection)
        with connection.transaction():
            connection.execute("SELECT 1")

    with pooled(database_dsn, tmp_path, "session") as dsn:
        for act in (copy, transact):
            with (
                pytest.raises(ServerUnavailableError, match="ended the session"),
                database(dsn, is_checked=False) as connection,
            ):
                act(connection)


@needs_pgbouncer
def test_a_pool_that_is_too_small_for_the_locks_is_a_sentence(
    migrated_dsn: str, tmp_path: Path
) -> None:
    with (
        pooled(migrated_dsn, tmp_path, size=1, query_wait_timeout=1) as dsn,
        locking(dsn, "redrive") as lock,
    ):
        assert lock.take()
        with (
            pytest.raises(DLQError, match=r"pooler in front of .* refused \(query_wait_timeout\)"),
            database(dsn, is_checked=False) as connection,
        ):
            connection.execute("SELECT 1")
