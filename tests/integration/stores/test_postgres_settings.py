"""Every job on PostgreSQL with the settings of administrators: sessions, encodings, poolers."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from nats.aio.client import Client
from psycopg import sql
from pydantic import SecretStr

from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.alerts.exporter import DLQCollector
from sahool_dlq.embedded import PostgresServer
from sahool_dlq.jobs.batches import list_batches
from sahool_dlq.jobs.decisions import audit_trail, decide
from sahool_dlq.jobs.drain import drain_log, migrate_all
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.redrive import explain_policy, preview_redrive
from sahool_dlq.jobs.status import platform_status
from sahool_dlq.jobs.upkeep import erase_tenant, regroup_history, verify_stores
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import locking
from support.platform_log import (
    DLQ,
    ROOT,
    check_exact,
    environment,
    last_sequence,
    letter,
    publish,
    query,
    run_drain,
    start_drain,
    told,
)
from support.pooler import needs_pgbouncer, pooled
from support.redriving import Service, fail, quick, redrive_timeouts, rows

# Of all that an administrator may set, what changes what a client reads or has to write.
ODD = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "extra_float_digits": "-10",
    "default_transaction_isolation": "serializable",
    "idle_session_timeout": "200ms",
    "idle_in_transaction_session_timeout": "500ms",
}
HOLDER = """
import sys, time
from sahool_dlq.stores.postgres.database import locking
with locking(sys.argv[1], "redrive") as lock:
    print(lock.take(), flush=True)
    time.sleep(600)
"""
CIRCLE_SECONDS = 90  # for all jobs; a lock that stayed behind takes a drain a minute


def odd(dsn: str, **changes: str) -> None:
    """Change settings of the database of a DSN, for later sessions."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        for setting, value in (ODD | changes).items():
            statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
            connection.execute(statement.format(name, sql.Identifier(setting), sql.Literal(value)))


def on(settings: Settings, dsn: str) -> Settings:
    return settings.model_copy(update={"postgres_dsn": SecretStr(dsn)})


async def everything(settings: Settings, client: Client) -> None:
    """Each job that uses PostgreSQL, and its expected result."""
    settings = quick(settings.model_copy(update={"keep_payloads": True}))
    async with Service(settings, TimeoutError("träge\\ 𝄞")).running() as service:
        await fail(settings, client, service, 6, tenant_id="acme")
        await drain_log(settings)
        found = rows(settings, "SELECT id::text, dlq_timestamp FROM failed_events ORDER BY id")
        assert all(abs((datetime.now(UTC) - at).total_seconds()) < 300 for _, at in found)
        first, second, third, fourth, *_ = (failure_id for failure_id, _ in found)
        for failure, decision in (
            (first, "resolved"),
            (second, "discarded"),
            (third, "parked"),
            (fourth, "parked"),
            (fourth, "unparked"),
        ):
            chosen = Selection(failure_ids=(failure,))
            done = await decide(settings, chosen, decision, actor="ana", reason="x")
            assert done.changed == 1
        assert len(audit_trail(settings)) == 10
        await evaluate_alerts(settings)
        transient = Selection(error_types=("TimeoutError",), since=datetime(2026, 1, 1, tzinfo=UTC))
        assert (await preview_redrive(settings, transient)).plan.count == 3
        assert explain_policy(settings, transient)
        service.error = None
        report = await redrive_timeouts(settings, selection=replace(transient, limit=100))
    assert report is not None
    assert report.outcomes == {"succeeded": 3}
    assert [batch.outcomes for batch in list_batches(settings)] == [{"succeeded": 3}]
    build_all_marts(settings)
    regroup_history(settings)
    assert ("dlq_up", "postgres", 1.0) in await asyncio.to_thread(_metrics, settings)
    status = await platform_status(settings)
    assert status.failures == {"resolved": 4, "discarded": 1, "parked": 1}
    assert (await verify_stores(settings)).findings == ()
    erased = await erase_tenant(settings, "acme", actor="ana", reason="asked for it")
    assert (sum(erased.failures.values()), erased.left) == (6, None)
    assert (await verify_stores(settings, is_repair=True)).is_well


def _metrics(settings: Settings) -> set[tuple[str, str, float]]:
    return {
        (sample.name, next(iter(sample.labels.values()), ""), sample.value)
        for family in DLQCollector(settings).collect()
        for sample in family.samples
    }


async def test_every_job_runs_whatever_the_database_is_set_to(
    settings: Settings, client: Client, migrated_dsn: str
) -> None:
    odd(migrated_dsn)
    await everything(settings, client)


@pytest.fixture(params=["transaction", "session"])
def behind_a_pooler(
    settings: Settings, migrated_dsn: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Settings]:
    with pooled(
        migrated_dsn, tmp_path, request.param, 3 if request.param == "transaction" else 20
    ) as dsn:
        yield on(settings, dsn)


@needs_pgbouncer
async def test_every_job_runs_through_a_pooler(
    behind_a_pooler: Settings, client: Client, migrated_dsn: str
) -> None:
    odd(migrated_dsn, idle_session_timeout="10min")  # the sessions are the pooler's own
    async with asyncio.timeout(CIRCLE_SECONDS):
        assert (await migrate_all(behind_a_pooler))[0] == []
        await everything(behind_a_pooler, client)
    held = "SELECT relation::regclass FROM pg_locks JOIN pg_class c ON c.oid = relation"
    assert query(behind_a_pooler, f"{held} WHERE starts_with(relname, 'lock_')") == []


@needs_pgbouncer
async def test_drains_at_once_through_a_pooler_store_each_message_once(
    settings: Settings, client: Client, migrated_dsn: str, tmp_path: Path
) -> None:
    stored = await publish(client, settings, map(letter, range(300)))
    with pooled(migrated_dsn, tmp_path) as dsn:
        behind = on(settings, dsn)
        drains = [start_drain(behind, DLQ_DRAIN_BATCH_MESSAGES="20") for _ in range(3)]
        for process in drains:
            output, errors = await asyncio.to_thread(process.communicate, timeout=CIRCLE_SECONDS)
            assert (process.returncode, errors) == (0, "")
            assert json.loads(output)["seconds"] < 30
    check_exact(settings, stored)


@needs_pgbouncer
def test_a_lock_behind_a_pooler_ends_with_its_holder_and_holds_up_no_vacuum(
    settings: Settings, migrated_dsn: str, tmp_path: Path
) -> None:
    with pooled(migrated_dsn, tmp_path) as dsn:
        with locking(dsn, "redrive") as first, locking(dsn, "redrive") as second:
            assert (first.take(), second.take()) == (True, False)
            held = "SELECT backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = %s"
            holder = second.holder()
            assert holder is not None
            assert query(settings, held, holder.pid) == [
                {"backend_xmin": None, "backend_xid": None}
            ]
            first.release()
            assert second.take()
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, dsn], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with locking(dsn, "redrive") as third:
            assert not third.take()
            holder.kill()
            holder.communicate()
            deadline = time.monotonic() + 30
            while not third.take():
                assert time.monotonic() < deadline, "the lock of a killed process stays"
                time.sleep(0.05)


@needs_pgbouncer
async def test_a_pooler_that_allows_no_transaction_is_refused_in_a_sentence(
    settings: Settings, client: Client, migrated_dsn: str, tmp_path: Path
) -> None:
    with pooled(migrated_dsn, tmp_path, "statement") as dsn:
        status, _, errors = await run_drain(on(settings, dsn))
    assert status == 1
    assert told(errors).startswith("The pooler in front of PostgreSQL at ")
    assert "statement pooling mode" in errors


ENCODINGS = ("SQL_ASCII", "LATIN1")
VERBS = (
    ("migrate",),
    ("drain",),
    ("status",),
    ("redrive", "--type", "TimeoutError", "--dry-run"),
    ("marts",),
    ("alerts", "check"),
    ("resolve", "--type", "TimeoutError", "--reason", "x", "--yes"),
    ("verify",),
)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_database_that_can_not_hold_the_text_is_refused_and_nothing_is_lost(
    settings: Settings, client: Client, postgres_server: PostgresServer, encoding: str
) -> None:
    stored = await publish(client, settings, map(letter, range(3)))
    name = f"{settings.subject_prefix}_{encoding}".lower()
    with psycopg.connect(postgres_server.dsn_of("postgres"), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
            " LOCALE_PROVIDER 'libc' TEMPLATE template0"
        )
    try:
        refusing = on(settings, postgres_server.dsn_of(name))
        for verb in VERBS:
            process = await asyncio.create_subprocess_exec(
                *DLQ,
                *verb,
                cwd=ROOT,
                env=environment(refusing),
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            _, said = await process.communicate()
            assert process.returncode == 1
            assert (
                f"has the encoding {encoding}, which cannot store every dead letter"
                in said.decode()
            )
            assert "Traceback" not in said.decode()
        with psycopg.connect(postgres_server.dsn_of(name)) as connection:
            tables = "SELECT FROM pg_tables WHERE schemaname IN ('public', 'dlq')"
            assert connection.execute(tables).fetchall() == []
    finally:
        postgres_server.drop_database(name)
    assert await last_sequence(client, settings) == 3
    await drain_log(settings)  # into one that can
    check_exact(settings, stored)
