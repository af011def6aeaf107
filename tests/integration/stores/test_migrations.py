"""Migrations: idempotent, plain SQL, accept existing tables; and the drain on an older server."""

import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nats.aio.client import Client

from sahool_dlq.embedded import PostgresServer
from sahool_dlq.embedded.account import installed_binaries
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate, migrations
from support.platform_log import ROOT, check_exact, failures, letter, publish, query, state_of

FOLDER = ROOT / "sql" / "postgres" / "migrations"
DEBIAN = Path("/usr/lib/postgresql/15/bin")

# Column: type, whether it may be null, default. As the older services' migration made them.
FIRST = {
    "id": ("uuid", "NO", None),
    "event_id": ("character varying(255)", "NO", None),
    "event_type": ("character varying(100)", "NO", None),
    "original_subject": ("character varying(255)", "NO", None),
    "source_service": ("character varying(100)", "NO", None),
    "tenant_id": ("character varying(255)", "YES", None),
    "field_id": ("character varying(255)", "YES", None),
    "farmer_id": ("character varying(255)", "YES", None),
    "error_message": ("text", "NO", None),
    "error_type": ("character varying(100)", "NO", None),
    "stack_trace": ("text", "YES", None),
    "retry_count": ("integer", "NO", "0"),
    "max_retries": ("integer", "NO", "3"),
    "first_attempt_at": ("timestamp with time zone", "NO", None),
    "last_attempt_at": ("timestamp with time zone", "NO", None),
    "original_data": ("jsonb", "NO", None),
    "original_headers": ("jsonb", "YES", "'{}'::jsonb"),
    "dlq_timestamp": ("timestamp with time zone", "NO", None),
    "dlq_reason": ("character varying(100)", "NO", "'max_retries_exceeded'::character varying"),
    "status": ("character varying(50)", "NO", "'pending'::character varying"),
    "resolved_at": ("timestamp with time zone", "YES", None),
    "resolution_notes": ("text", "YES", None),
    "alert_sent": ("boolean", "NO", "false"),
    "alert_sent_at": ("timestamp with time zone", "YES", None),
    "created_at": ("timestamp with time zone", "NO", "now()"),
    "updated_at": ("timestamp with time zone", "NO", "now()"),
}
ADDED = {
    *("epoch", "dlq_sequence", "published_at", "seen_count", "consumer_service", "consumer_name"),
    *("handler", "attempts", "group_id", "parent_id", "fingerprint_version", "root_failure_id"),
    *("redrive_count", "resolution_cause", "discarded_at", "payload_encoding", "parse_error"),
    "clamped",
}


def columns(dsn: str) -> dict[str, tuple[str, str, str | None]]:
    """Type, nullability and default of each column of failed_events, in order."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod),"
            " CASE WHEN a.attnotnull THEN 'NO' ELSE 'YES' END, pg_get_expr(d.adbin, d.adrelid)"
            " FROM pg_attribute a LEFT JOIN pg_attrdef d ON (adrelid, adnum) = (attrelid, attnum)"
            " WHERE attrelid = 'failed_events'::regclass AND attnum > 0 ORDER BY attnum"
        ).fetchall()
    return {name: (kind, nullable, default) for name, kind, nullable, default in rows}


def schema(dsn: str) -> list[tuple[Any, ...]]:
    """Everything that migrations make: columns, constraints, indexes, triggers, comments."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod)"
            " FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
            " WHERE relnamespace = 'dlq'::regnamespace AND attnum > 0 UNION ALL"
            " SELECT 'index', tablename, indexname, indexdef FROM pg_indexes"
            " WHERE schemaname = 'dlq' UNION ALL"
            " SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
            " FROM pg_constraint WHERE connamespace = 'dlq'::regnamespace UNION ALL"
            " SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)"
            " FROM pg_trigger WHERE NOT tgisinternal UNION ALL"
            " SELECT 'comment', objoid::regclass::text, objsubid::text, description"
            " FROM pg_description WHERE classoid = 'pg_class'::regclass"
            " AND objoid >= 16384 ORDER BY 1, 2, 3, 4"
        ).fetchall()


def dump(dsn: str) -> list[str]:
    """The database as pg_dump writes it, without rows: owners, rights and settings too."""
    done = subprocess.run(
        [installed_binaries() / "pg_dump", "--schema-only", "--create", dsn],
        capture_output=True,
        text=True,
        check=True,
    )
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    lines = done.stdout.replace(str(name), "database").splitlines()
    return [line for line in lines if "restrict " not in line]  # it has a random word


def psql(dsn: str, file: Path) -> None:
    """Run a file as `psql -f` does, stopping at the first error."""
    done = subprocess.run(
        [installed_binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, dsn],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr


def test_failed_events_has_exactly_the_columns_that_others_know(database_dsn: str) -> None:
    for name in ("0000_schema", "0001_failed_events"):
        psql(database_dsn, FOLDER / f"{name}.sql")
    assert columns(database_dsn) == FIRST
    migrate(database_dsn)
    found = columns(database_dsn)
    assert list(found)[: len(FIRST)] == list(FIRST)
    assert set(found) >= ADDED
    for name in set(found) - set(FIRST):  # an older writer, who knows none of them, still can write
        _, nullable, default = found[name]
        assert nullable == "YES" or default is not None, name


def test_rights_wait_for_a_superuser_where_the_owner_may_make_no_roles(
    postgres_server_factory: Callable[..., PostgresServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = postgres_server_factory()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE poor LOGIN")
        connection.execute("CREATE DATABASE mine OWNER poor")
        superuser = server.dsn_of("mine")
        owner, reader = (superuser.replace("postgres@", f"{user}@") for user in ("poor", "reader"))
        assert migrate(owner) == migrations()
        assert "0011_roles.sql: poor may not make roles, so there is no dlq_drain, " in caplog.text
        psql(owner, FOLDER / "0011_roles.sql")
        connection.execute("CREATE ROLE reader LOGIN")
        psql(superuser, FOLDER / "0011_roles.sql")
        connection.execute("GRANT dlq_analyst TO reader")
        psql(owner, FOLDER / "0011_roles.sql")
    with psycopg.connect(reader) as connection:
        assert connection.execute("SELECT count(*) FROM failed_events").fetchone() == (0,)
    # Every migration since has given its rights to roles that were there: this file gives all.
    other = server.create_database("other")
    migrate(other)
    assert rights(superuser) == rights(other)


def rights(dsn: str) -> set[tuple[str, ...]]:
    """Table, column (empty for the whole table), role, and what the role may do there."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT table_name, column_name, grantee, privilege_type"
            " FROM information_schema.role_column_grants"
            " WHERE table_schema = 'dlq' AND grantee LIKE 'dlq%'"
            " UNION SELECT table_name, '', grantee, privilege_type"
            " FROM information_schema.role_table_grants"
            " WHERE table_schema = 'dlq' AND grantee LIKE 'dlq%'"
        ).fetchall()
    return set(found)


def test_databases_of_a_new_cluster_may_be_migrated_at_once(
    postgres_server_factory: Callable[..., PostgresServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = postgres_server_factory()
    databases = [server.create_database(f"other{number}") for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(migrate, databases)) == [migrations()] * 6
    with psycopg.connect(databases[-1]) as connection:
        made = connection.execute("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'dlq%'")
        assert made.fetchone() == (7,)
    assert "WARNING" not in caplog.text


def test_erasures_are_the_drains_to_read_and_the_maintenances_to_write(migrated_dsn: str) -> None:
    with psycopg.connect(migrated_dsn) as connection:
        rights = connection.execute(
            "SELECT rolname, string_agg(right_name, ' ' ORDER BY right_name DESC) FROM pg_roles,"
            " unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS right_name WHERE rolname LIKE 'dlq%'"
            " AND has_table_privilege(rolname, 'erasures', right_name) GROUP BY 1"
        ).fetchall()
    readers = ("dlq_drain", "dlq_redriver", "dlq_auditor")
    assert dict(rights) == dict.fromkeys(readers, "SELECT") | {"dlq_maintenance": "SELECT INSERT"}


def test_every_column_and_table_has_a_comment(migrated_dsn: str) -> None:
    with psycopg.connect(migrated_dsn) as connection:
        bare = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'failed_events'::regclass"
            " AND attnum > 0 AND col_description(attrelid, attnum) IS NULL UNION ALL"
            " SELECT relname FROM pg_class WHERE relnamespace = 'dlq'::regnamespace"
            " AND relkind = 'r' AND obj_description(oid) IS NULL"
        ).fetchall()
    assert bare == []


def test_migrating_twice_changes_nothing(database_dsn: str) -> None:
    assert migrate(database_dsn) == migrations()
    before = schema(database_dsn)
    assert migrate(database_dsn) == []
    assert schema(database_dsn) == before


def test_a_clone_is_what_migrating_makes(database_dsn: str, migrated_dsn: str) -> None:
    """Most tests start from a clone: see `migrated_dsn`."""
    migrate(database_dsn)
    made = dump(database_dsn)
    assert dump(migrated_dsn) == made
    assert any("SET search_path" in line for line in made if line.startswith("ALTER DATABASE"))
    assert migrate(migrated_dsn) == []


def test_psql_runs_the_files_in_order_and_again(
    database_dsn: str, postgres_server: PostgresServer
) -> None:
    other = postgres_server.create_database("migrated")
    try:
        migrate(other)
        for _ in range(2):
            for file in sorted(FOLDER.glob("*.sql")):
                psql(database_dsn, file)
        assert schema(database_dsn) == schema(other)
        assert migrate(database_dsn) == []
    finally:
        postgres_server.drop_database("migrated")


def test_names_of_migrations_are_in_order() -> None:
    names = migrations()
    numbers = [name[:4] for name in names]
    assert numbers == sorted(set(numbers))  # no two with one number: their order would be chance
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", name) for name in names)


OLD_ROW = """
INSERT INTO failed_events (id, event_id, event_type, original_subject, source_service,
    error_message, error_type, first_attempt_at, last_attempt_at, original_data, dlq_timestamp,
    status, resolution_notes)
VALUES ('00000000-0000-0000-0000-000000000001', 'old', 'ndvi', 'sahool.analysis.ndvi', 'sat',
    'it broke', 'ValueError', now(), now(), '{"a": 1}', now(), 'resolved', 'by hand')
"""


async def test_a_table_of_the_older_migration_is_adopted_with_its_rows(
    settings: Settings, client: Client, postgres_server: PostgresServer
) -> None:
    name = "older"
    dsn = postgres_server.create_database(name)
    try:
        with psycopg.connect(dsn) as connection:
            kinds = ", ".join(
                f"{column} {kind}"
                + (" NOT NULL" if nullable == "NO" else "")
                + (f" DEFAULT {default}" if default else "")
                for column, (kind, nullable, default) in FIRST.items()
            )
            connection.execute(f"CREATE TABLE failed_events ({kinds}, PRIMARY KEY (id))")
            connection.execute(OLD_ROW)
            before = connection.execute("SELECT * FROM failed_events").fetchall()
        migrate(dsn)
        older = settings.model_copy(update={"postgres_dsn": type(settings.postgres_dsn)(dsn)})
        assert list(columns(dsn))[: len(FIRST)] == list(FIRST)
        kept = query(older, f"SELECT {', '.join(FIRST)} FROM failed_events")
        assert [tuple(row.values()) for row in kept] == before
        await publish(client, settings, [letter(1)])
        await drain_log(older)
        rows = {row["event_id"]: row for row in failures(older)}
        assert set(rows) == {"old", "event-1"}
        assert rows["old"]["seen_count"] == 1
        with psycopg.connect(dsn) as connection:  # the trigger is there as well
            connection.execute("UPDATE failed_events SET status = 'pending'")
        assert all(row["updated_at"] > row["created_at"] for row in failures(older))
    finally:
        postgres_server.drop_database(name)


@pytest.fixture
def debian(postgres_server_factory: Callable[..., PostgresServer]) -> str:
    """A database on Debian's PostgreSQL 15."""
    if not DEBIAN.is_dir():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN}")
    return postgres_server_factory(bin_dir=DEBIAN).dsn


async def test_the_drain_works_on_debians_postgresql_15(
    settings: Settings, client: Client, debian: str
) -> None:
    migrate(debian)
    platform = settings.model_copy(
        update={
            "postgres_dsn": type(settings.postgres_dsn)(debian),
            "drain_batch_messages": 30,
        }
    )
    (version,) = query(platform, "SHOW server_version")
    assert version["server_version"].startswith("15.")
    stored = await publish(client, settings, map(letter, range(100)))
    report = await drain_log(platform)
    assert report.drained == 100
    check_exact(platform, stored)
    bad = await publish(client, settings, [b"no JSON", letter(1, error_message="\x00\ud800")])
    assert (await drain_log(platform)).drained == len(bad)
    before = state_of(platform)
    assert (await drain_log(platform)).drained == 0
    assert state_of(platform) == before
