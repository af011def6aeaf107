"""Older installations with tables in `public` are moved, with all their rows."""

import re
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from nats.aio.client import Client
from pydantic import SecretStr
from test_migrations import FOLDER, schema

from sahool_dlq.embedded import PostgresServer
from sahool_dlq.errors import DLQError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate, migrations
from support.platform_log import check_exact, letter, publish, query

LAST_OLD = "0015"
# Those versions also let the drain create its marts, and any other table.
BESIDES = """
GRANT CREATE, USAGE ON SCHEMA public TO dlq_drain;
CREATE FUNCTION share_mart(mart REGCLASS) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE TABLE mart_metrics (metric text, label text, value double precision);
CREATE TABLE mart_gone (a int);
INSERT INTO mart_metrics VALUES ('a', '', 1);
ALTER TABLE mart_metrics OWNER TO dlq_drain;
ALTER TABLE mart_gone OWNER TO dlq_drain;
"""
ROWS = """
INSERT INTO failed_events (id, event_id, event_type, original_subject, source_service,
    error_message, error_type, first_attempt_at, last_attempt_at, original_data, dlq_timestamp)
VALUES ('00000000-0000-0000-0000-000000000001', 'old', 'ndvi', 'sahool.analysis.ndvi', 'sat',
    'it broke', 'ValueError', now(), now(), '{"a": 1}', now());
INSERT INTO audit_log (actor, action) VALUES ('ana', 'triage.parked');
"""


def make_old(dsn: str) -> None:
    """Create the tables of the migrations up to 0015 in `public`, with the owner of the DSN."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "CREATE TABLE schema_migrations (name TEXT PRIMARY KEY,"
            " applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
        )
    for file in sorted(FOLDER.glob("*.sql")):
        if not "0001" <= file.stem[:4] <= LAST_OLD:
            continue
        text = file.read_text()
        text = text.replace("SET LOCAL search_path = pg_catalog, dlq, pg_temp;", "")
        text = text.replace("SET search_path = pg_catalog, pg_temp ", "")
        for ours, theirs in (
            ("dlq.", "public."),
            ("SCHEMA dlq", "SCHEMA public"),
            ("'dlq'", "'public'"),
        ):
            text = text.replace(ours, theirs)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(text)
    with psycopg.connect(dsn) as connection:
        connection.execute(BESIDES)
        connection.execute(ROWS)


@pytest.fixture
def old(settings: Settings, postgres_server: PostgresServer) -> Iterator[Settings]:
    """The settings of such an installation; its roles exist, because `settings` created them."""
    name = f"old_{uuid.uuid4().hex[:8]}"
    dsn = postgres_server.create_database(name)
    make_old(dsn)
    yield settings.model_copy(update={"postgres_dsn": SecretStr(dsn)})
    postgres_server.drop_database(name)


LEFT = "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace"


async def test_an_older_installation_is_moved_with_its_rows_and_continues(
    old: Settings, settings: Settings, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    dsn = old.postgres_dsn.get_secret_value()
    assert query(old, LEFT + " AND relkind = 'v'") == []
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE VIEW seen AS SELECT id, status FROM failed_events")
    assert migrate(dsn) == [name for name in migrations() if not "0001" <= name[:4] <= LAST_OLD]
    assert "WARNING" not in caplog.text
    assert schema(dsn) == schema(settings.postgres_dsn.get_secret_value())
    assert query(old, LEFT) == [{"relname": "seen", "relkind": "v"}]
    assert query(old, "SELECT event_id, status FROM dlq.failed_events") == [
        {"event_id": "old", "status": "pending"}
    ]
    assert query(old, "SELECT count(*) AS n FROM seen") == [
        {"n": 1}
    ]  # tables that people created still work
    assert query(old, "SELECT id, actor FROM audit_log") == [{"id": 1, "actor": "ana"}]
    assert query(old, "SELECT has_schema_privilege('dlq_drain', 'public', 'CREATE') AS may") == [
        {"may": False}
    ]
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM failed_events")
    stored = await publish(client, old, [letter(1), letter(2)])
    await drain_log(old)
    check_exact(old, stored)
    build_all_marts(old)
    assert query(old, "SELECT count(*) > 1 AS is_full FROM mart_metrics") == [{"is_full": True}]
    assert migrate(dsn) == []


def test_what_stays_behind_is_reported(old: Settings, caplog: pytest.LogCaptureFixture) -> None:
    dsn, mallory = old.postgres_dsn.get_secret_value(), f"mallory_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE VIEW mine AS SELECT * FROM mart_metrics")
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        connection.execute(f"CREATE ROLE {mallory} LOGIN IN ROLE dlq_drain")
    try:
        with psycopg.connect(psycopg.conninfo.make_conninfo(dsn, user=mallory)) as connection:
            connection.execute(
                "CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'planted as %', current_user; END $$"
            )
            connection.execute("SET ROLE dlq_drain")
            connection.execute(
                "CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'planted as %', current_user; END $$"
            )
            connection.execute(
                "CREATE TRIGGER planted BEFORE INSERT OR DELETE ON mart_metrics"
                " FOR EACH STATEMENT EXECUTE FUNCTION planted()"
            )
        migrate(dsn)
        assert "mart_metrics stays and is filled no more (cannot drop table" in caplog.text
        assert "let its owner REVOKE CREATE ON SCHEMA public FROM PUBLIC, dlq_drain." in caplog.text
        assert "see what they do, and drop them: public.lower(character varying)" in caplog.text
        assert "public.planted()" in caplog.text
        build_all_marts(old)  # by the owner, who would run what was planted
    finally:
        with psycopg.connect(dsn) as connection:
            connection.execute("DROP VIEW mine")
            connection.execute("DROP TABLE public.mart_metrics")
            connection.execute("DROP FUNCTION planted()")
            connection.execute(f"DROP OWNED BY {mallory}")
            connection.execute(f"DROP ROLE {mallory}")


def test_who_does_not_own_the_database_or_the_schema_gets_an_error(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    name, owner, other = (f"{what}_{uuid.uuid4().hex[:8]}" for what in ("db", "owner", "other"))
    dsn = postgres_server.create_database(name)
    as_owner = psycopg.conninfo.make_conninfo(dsn, user=owner)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in (owner, other):
            connection.execute(f"CREATE ROLE {role} LOGIN")
        try:
            with pytest.raises(DLQError, match=f"permission denied for database {name}: grant it"):
                migrate(as_owner)
            connection.execute(f"CREATE SCHEMA dlq AUTHORIZATION {other}")
            with pytest.raises(DLQError, match="permission denied for schema dlq: grant it"):
                migrate(as_owner)
            connection.execute(f"GRANT USAGE ON SCHEMA dlq TO {owner}")
            with pytest.raises(DLQError, match=f"the schema dlq belongs to {other}: migrate as"):
                migrate(as_owner)
            connection.execute(f"ALTER SCHEMA dlq OWNER TO {owner}")
            assert migrate(as_owner) == migrations()
            assert f"let its owner ALTER DATABASE {name} SET search_path = " in caplog.text
            found = connection.execute("SELECT count(*) FROM dlq.failed_events")
            assert found.fetchone() == (0,)
        finally:
            postgres_server.drop_database(name)
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        for role in (owner, other):
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("before", ["", "'$user', other", "dlq"])
def test_a_path_that_the_database_has_is_kept_and_made_longer_once(
    database_dsn: str, before: str
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_dsn)["dbname"]
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        if before:
            connection.execute(f"ALTER DATABASE {name} SET search_path = {before}")
    for _ in range(2):
        migrate(database_dsn)
        with psycopg.connect(database_dsn, autocommit=True) as connection:
            said = connection.execute("SHOW search_path").fetchone()
            connection.execute("DELETE FROM dlq.schema_migrations WHERE name = '0000_schema'")
        after = {"": '"$user", public, dlq', "dlq": "dlq"}
        assert said == (after.get(before, '"$user", other, dlq'),)


def test_every_migration_has_a_fixed_path_and_says_where_it_makes_things() -> None:
    for file in FOLDER.glob("*.sql"):
        lines = [line for line in file.read_text().splitlines() if line and line[:2] != "--"]
        assert lines[:2] == ["BEGIN;", "SET LOCAL search_path = pg_catalog, dlq, pg_temp;"], file
        made = re.findall(
            r"^CREATE (?:OR REPLACE )?(?:TABLE|VIEW|FUNCTION|TYPE)(?: IF NOT EXISTS)? (\S+)",
            "\n".join(lines),
            re.MULTILINE,
        )
        assert all(name.startswith("dlq.") for name in made), file
