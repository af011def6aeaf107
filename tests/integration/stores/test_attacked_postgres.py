"""What a login with a role of the platform, or without any, cannot do to PostgreSQL."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from nats.aio.client import Client
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.errors import InsufficientPrivilege

from sahool_dlq.analysis.marts.build import SUMMARIES
from sahool_dlq.errors import FencedError
from sahool_dlq.jobs.batches import cancel
from sahool_dlq.jobs.decisions import audit_trail, decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts, compute_marts
from sahool_dlq.jobs.redrive import plan_redrive
from sahool_dlq.jobs.upkeep import erase_tenant
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres import lock as locks
from sahool_dlq.stores.postgres.audit import audit
from sahool_dlq.stores.postgres.database import database, locking, migrate
from sahool_dlq.stores.postgres.lock import LockName
from sahool_dlq.stores.postgres.marts import fill_marts
from support.platform_log import execute, in_lake, letter, publish, query, run_drain

GROUPS = ("drain", "redriver", "alerts", "analyst", "auditor", "payloads", "maintenance")
LOCKS: dict[LockName, set[str]] = {  # and who may take each
    "migrate": set(),
    "drain": {"drain", "redriver", "maintenance"},
    "marts": {"drain", "redriver", "maintenance"},
    "regroup": {"drain", "redriver", "maintenance"},
    "redrive": {"redriver"},
    "alerts": {"alerts"},
}


@contextlib.contextmanager
def login(settings: Settings, group: str | None) -> Iterator[str]:
    """The DSN of a new login with that role of the platform, or with none."""
    name, dsn = f"mallory_{uuid.uuid4().hex[:8]}", settings.postgres_dsn.get_secret_value()
    execute(settings, f"CREATE ROLE {name} LOGIN" + (f" IN ROLE dlq_{group}" if group else ""))
    try:
        yield make_conninfo(dsn, user=name)
    finally:
        execute(settings, f"DROP OWNED BY {name}")
        execute(settings, f"DROP ROLE {name}")


MAKING = (
    "CREATE TABLE {}.mart_more (a int)",
    "CREATE VIEW {}.more AS SELECT 1",
    "CREATE FUNCTION {}.lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1::text'",
    "CREATE OPERATOR {}.= (LEFTARG = text, RIGHTARG = varchar, FUNCTION = texteq)",
    "CREATE TYPE {}.more AS ENUM ('a')",
    "CREATE SEQUENCE {}.more",
)
CHANGING = (
    "CREATE SCHEMA more",
    (
        "CREATE TRIGGER more BEFORE INSERT ON dlq.mart_metrics FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
    "CREATE RULE more AS ON INSERT TO dlq.mart_metrics DO ALSO NOTIFY more",
    "ALTER TABLE dlq.mart_metrics ADD more int",
    "ALTER TABLE dlq.failed_events ALTER status SET DEFAULT 'resolved'",
    "CREATE INDEX ON dlq.failed_events (lower(status))",
    "DROP TABLE dlq.mart_metrics",
    "DROP VIEW dlq.lock_drain",
    "CREATE OR REPLACE VIEW dlq.lock_drain AS SELECT false AS is_lock",
    (
        "CREATE OR REPLACE FUNCTION dlq.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NEW; END'"
    ),
    "ALTER TABLE dlq.audit_log DISABLE TRIGGER ALL",
    "INSERT INTO dlq.schema_migrations (name) VALUES ('9999_more')",
)


@pytest.mark.parametrize("group", GROUPS)
def test_only_the_owner_creates_objects(settings: Settings, group: str) -> None:
    with login(settings, group) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (
            *(s.format(where) for s in MAKING for where in ("dlq", "public")),
            *CHANGING,
        ):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)


def test_a_login_without_a_role_sees_nothing(settings: Settings) -> None:
    with login(settings, None) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for table in ("failed_events", "mart_metrics", "lock_drain", "schema_migrations"):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(f"SELECT FROM dlq.{table}")


PLANTED = """
CREATE TABLE public.failed_events (id uuid, status text);
CREATE TABLE public.schema_migrations (name text);
CREATE TABLE public.audit_log (actor text);
CREATE FUNCTION public.planted() RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'planted as %', current_user; END $$;
CREATE FUNCTION public.starts_with(varchar, varchar) RETURNS boolean
    LANGUAGE sql AS $$ SELECT public.planted() IS NULL $$;
CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS $$ SELECT public.planted() $$;
CREATE FUNCTION public.planted(varchar, varchar) RETURNS boolean
    LANGUAGE sql AS $$ SELECT public.planted() IS NULL $$;
CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.planted);
"""


async def test_what_somebody_plants_in_other_schemas_is_never_used(
    settings: Settings, client: Client
) -> None:
    """As if everybody may create objects in `public`, the default of PostgreSQL 14."""
    dsn = settings.postgres_dsn.get_secret_value()
    await publish(client, settings, [letter(1), letter(2)])
    with login(settings, "drain") as mallory:
        execute(settings, "GRANT CREATE ON SCHEMA public TO PUBLIC")
        with psycopg.connect(mallory, autocommit=True) as connection:
            connection.execute(PLANTED)
        with psycopg.connect(dsn) as connection:  # it is a trap for sessions without a path of ours
            connection.execute("SET search_path = public")
            with pytest.raises(psycopg.errors.RaiseException, match="planted as postgres"):
                connection.execute("SELECT 'a'::varchar = 'b'::varchar")
        trapped = make_conninfo(dsn, options="-c search_path=public,dlq")
        with database(trapped) as connection:
            assert connection.execute("SHOW search_path").fetchone() == (
                "pg_catalog, dlq, pg_temp",
            )
            connection.execute("CREATE TEMP TABLE failed_events (a int)")
            found = connection.execute(
                "SELECT 'failed_events'::regclass::oid = %s::regclass::oid", ["dlq.failed_events"]
            )
            assert found.fetchone() == (True,)
        over = settings.model_copy(update={"postgres_dsn": type(settings.postgres_dsn)(trapped)})
        assert (await drain_log(over)).drained == 2
        chosen = Selection(error_types=("ConnectionError",), limit=1)
        assert (await decide(over, chosen, "parked", actor="ana", reason="x")).changed == 1
        assert {row["db_user"] for row in audit_trail(over)} == {"postgres"}
        build_all_marts(over)
        # Once more by the owner, who may do everything, and whose every step is one of ours.
        execute(settings, "DELETE FROM dlq.schema_migrations WHERE name > '0001'")
        assert "0018_rights" in migrate(trapped)
        assert query(settings, "SELECT count(*) AS n FROM dlq.failed_events") == [{"n": 2}]


def test_every_function_of_ours_has_a_fixed_path_or_is_bound_when_it_is_made(
    settings: Settings,
) -> None:
    found = query(
        settings,
        "SELECT proname, proconfig::text AS said, prosqlbody IS NOT NULL AS is_bound FROM pg_proc"
        " WHERE pronamespace = 'dlq'::regnamespace ORDER BY 1",
    )
    said = '{"search_path=pg_catalog, pg_temp"}'
    assert found == [
        {"proname": "is_open", "said": None, "is_bound": True},
        {"proname": "refuse_audit_change", "said": said, "is_bound": False},
        {"proname": "service", "said": None, "is_bound": True},
        {"proname": "set_failed_events_updated_at", "said": said, "is_bound": False},
    ]


def test_marts_have_the_tables_that_migrations_made(
    settings: Settings, simulated: Settings
) -> None:
    built = compute_marts(simulated, SUMMARIES, datetime.now(UTC))
    del built["log"]
    with login(settings, "drain") as dsn, database(dsn) as connection:
        fill_marts(connection, built)
        for name, frame in built.items():
            row = connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(f"mart_{name}"))
            ).fetchone()
            assert row == (frame.height,), name


TOLD = "INSERT INTO dlq.audit_log (actor, action{}) {} VALUES ('ana', 'triage.parked'{})"
FORGED = (
    (", db_user", "", ", 'somebody else'"),
    (", at", "", ", now() - interval '1 year'"),
    (", id", "OVERRIDING SYSTEM VALUE", ", 1000000"),
    (", id, at, db_user", "OVERRIDING SYSTEM VALUE", ", 1, now(), 'x'"),
)


@pytest.mark.parametrize("group", ["redriver", "alerts", "maintenance"])
def test_time_and_login_of_an_audit_row_cannot_be_chosen(settings: Settings, group: str) -> None:
    with login(settings, group) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for forged in FORGED:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(TOLD.format(*forged))
        with pytest.raises(InsufficientPrivilege):
            connection.execute("SELECT setval('dlq.audit_log_id_seq', 1000000)")
        with pytest.raises(InsufficientPrivilege):
            connection.execute("COPY dlq.audit_log (actor, action, db_user) FROM STDIN")
        with database(dsn) as ours:
            audit(ours, "triage.parked", actor="somebody else", reason="x")
        said = {"id": 1, "db_user": connection.info.user, "is_now": True}
    [row] = query(settings, "SELECT id, db_user, now() - at < '1 minute' AS is_now FROM audit_log")
    assert row == said


async def test_what_a_reason_says_is_masked_wherever_it_is_kept(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, [letter(1), letter(2)])
    await drain_log(settings)
    reason = "the login was password=hunter2-X9 and ana@farm.example asked"
    one = Selection(error_types=("ConnectionError",), limit=1)
    assert (await decide(settings, one, "parked", actor="ana", reason=reason)).changed == 1
    planned = await plan_redrive(settings, one, Order("manual", "ana", reason))
    assert planned is not None
    cancel(settings, planned[0].id, by="ana", reason=reason)
    kept = "\n".join(
        row["said"]
        for table in ("audit_log", "redrive_batches", "redrives", "failed_events")
        for row in query(settings, f"SELECT t::text AS said FROM {table} t")
    )
    assert kept.count("the login was password=") >= 4
    assert "hunter2" not in kept
    assert "ana@farm" not in kept


async def test_what_a_person_says_is_masked_wherever_it_is_kept(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, [letter(1), letter(2)])
    await drain_log(settings)
    by, planted = "ana, password=hunter2-X9", "'password=hunter2-X9'"
    chosen = Selection(
        where=f"error_type = 'ConnectionError' OR error_message = {planted}", limit=1
    )
    assert (await decide(settings, chosen, "parked", actor=by, reason="x")).changed == 1
    planned = await plan_redrive(settings, chosen, Order("manual", by, "x"))
    assert planned is not None
    cancel(settings, planned[0].id, by=by, reason="x")
    kept = "\n".join(
        row["said"]
        for table in ("audit_log", "redrive_batches", "failed_events")
        for row in query(settings, f"SELECT t::text AS said FROM {table} t")
    )
    kept += "".join(in_lake(settings, "case_events")["body"])
    assert not (await erase_tenant(settings, "tenant-1", actor=by, reason="x")).is_empty
    for table in ("audit_log", "erasures"):
        kept += str(query(settings, f"SELECT t::text FROM {table} t"))
    assert kept.count("ana, password=") >= 5
    assert kept.count("error_message = ") >= 3
    assert "hunter2" not in kept


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_taken_only_by_whose_job_it_is(settings: Settings, name: LockName) -> None:
    for group in (*GROUPS, None):
        with login(settings, group) as dsn, psycopg.connect(dsn) as connection:
            statement = f"LOCK TABLE dlq.lock_{name} IN ACCESS EXCLUSIVE MODE"
            if group in LOCKS[name]:
                connection.execute(statement)
            else:
                with pytest.raises(InsufficientPrivilege):
                    connection.execute(statement)
    with locking(settings.postgres_dsn.get_secret_value(), name) as lock:
        assert lock.take()


async def test_no_other_login_blocks_a_drain_or_marts(settings: Settings, client: Client) -> None:
    """A login holds every advisory lock that it can guess, and all it may on our tables."""
    await publish(client, settings, [letter(1)])
    with login(settings, "analyst") as dsn, psycopg.connect(dsn) as connection:
        for name in (
            "drain SAHOOL_DLQ",
            f"drain {settings.dlq_stream}",
            "marts",
            "redrive",
            "alerts",
        ):
            connection.execute("SELECT pg_advisory_lock(hashtextextended('dlq ' || %s, 0))", [name])
        for table in ("failed_events", "drain_checkpoints", "mart_metrics"):
            connection.execute(f"LOCK TABLE dlq.{table} IN ACCESS SHARE MODE")
            with pytest.raises(InsufficientPrivilege), connection.transaction():
                connection.execute(f"LOCK TABLE dlq.{table} IN SHARE MODE")
            with pytest.raises(InsufficientPrivilege), connection.transaction():
                connection.execute(f"SELECT FROM dlq.{table} FOR SHARE")
        status, output, errors = await run_drain(settings)
        assert (status, errors) == (0, "")
        assert json.loads(output)["drained"] == 1
        build_all_marts(settings)


def test_a_wait_for_a_lock_names_its_holder_and_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "_LONGEST_SECONDS", 0.6)
    monkeypatch.setattr(locks, "_SAID_AFTER_SECONDS", 0.1)
    dsn = settings.postgres_dsn.get_secret_value()
    with locking(dsn, "marts") as erasing, locking(dsn, "migrate") as migrating:
        assert erasing.take()
        assert migrating.take()
        who = r"session \d+ of postgres \('dlq [0-9a-f]{8}'\), since 20[-0-9]+ [0-9:]{8} UTC"
        with pytest.raises(
            FencedError, match=rf"The building of marts waited .*\(marts\): {who} has"
        ):
            build_all_marts(settings)
        with pytest.raises(
            FencedError, match=rf"dlq migrate waited 1 s .*\(migrate\): {who} has it"
        ):
            migrate(dsn)
    assert "The building of marts waits: session " in caplog.text
    assert build_all_marts(settings).is_rebuilt
    assert migrate(dsn) == []


def test_builds_of_marts_go_together_and_an_erasure_with_none(settings: Settings) -> None:
    dsn = settings.postgres_dsn.get_secret_value()
    with (
        locking(dsn, "marts", is_shared=True) as one,
        locking(dsn, "marts", is_shared=True) as other,
        locking(dsn, "marts") as erasing,
    ):
        assert one.take()
        assert other.take()
        assert not erasing.take()
        one.release()
        assert not erasing.take()
        other.release()
        assert erasing.take()
        assert not one.take()


def test_a_lock_holds_up_no_vacuum(settings: Settings) -> None:
    """It has no snapshot and no transaction id, so a VACUUM of everything is not blocked."""
    dsn = settings.postgres_dsn.get_secret_value()
    for is_shared in (False, True):
        with locking(dsn, "marts", is_shared=is_shared) as lock, locking(dsn, "marts") as second:
            assert lock.take()
            holder = second.holder()
            assert holder is not None
            assert query(
                settings,
                "SELECT backend_xid, backend_xmin, state FROM pg_stat_activity WHERE pid = %s",
                holder.pid,
            ) == [{"backend_xid": None, "backend_xmin": None, "state": "idle in transaction"}]
            execute(settings, "CREATE TABLE dead AS SELECT generate_series(1, 1000) AS n")
            execute(settings, "DELETE FROM dead")
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SET lock_timeout = '5s'")
                connection.execute("VACUUM")
                connection.execute("VACUUM dead")
                assert connection.execute("SELECT pg_relation_size('dead')").fetchone() == (0,)
            execute(settings, "DROP TABLE dead")
            lock.check()
