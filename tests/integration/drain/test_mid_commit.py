"""PostgreSQL is killed during a commit: whether it was committed or not, the drain continues."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from nats.aio.client import Client

from sahool_dlq.embedded import PostgresServer
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate
from support.platform_log import check_exact, letter, publish, query

# A trigger at the end of the transaction makes it wait until the server is restarted.
WAITS_BEFORE = """
CREATE TABLE public.started AS SELECT pg_postmaster_start_time() AS at;
CREATE FUNCTION wait_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM pg_sleep(300) FROM public.started WHERE at = pg_postmaster_start_time();
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER wait_long AFTER UPDATE ON drain_checkpoints
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.last_sequence > 40)
  EXECUTE FUNCTION wait_long();
"""
IN_COMMIT = (
    "SELECT wait_event FROM pg_stat_activity WHERE starts_with(application_name, 'dlq')"
    " AND state = 'active' AND query = 'COMMIT' AND wait_event IN ('PgSleep', 'SyncRep')"
)


@pytest.mark.parametrize("is_done", [False, True])
async def test_a_commit_without_an_answer_is_neither_lost_nor_repeated(
    settings: Settings,
    client: Client,
    postgres_server_factory: Callable[..., PostgresServer],
    monkeypatch: pytest.MonkeyPatch,
    is_done: bool,
) -> None:
    """Killed before the commit was done, or after it but before the answer."""
    monkeypatch.setattr("sahool_dlq.drain.run._PAUSES_SECONDS", [1.0] * 60)  # the start may be slow
    postgres = postgres_server_factory()
    migrate(postgres.dsn)
    platform = settings.model_copy(
        update={
            "postgres_dsn": type(settings.postgres_dsn)(postgres.dsn),
            "drain_batch_messages": 20,
        }
    )
    stored = await publish(client, platform, map(letter, range(40)))
    await drain_log(platform)
    stored |= await publish(client, platform, map(letter, range(40, 200)))
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        if is_done:  # it is durable here, and waits for a standby server that does not exist
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            connection.execute("SELECT pg_reload_conf()")
        else:
            connection.execute(WAITS_BEFORE)
        drain = asyncio.create_task(drain_log(platform))
        async with asyncio.timeout(120):
            while not (waiting := query(platform, IN_COMMIT)):
                await asyncio.sleep(0.05)
        assert waiting == [{"wait_event": "SyncRep" if is_done else "PgSleep"}]
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
    await asyncio.to_thread(postgres.kill)
    await asyncio.to_thread(postgres.start)
    assert (await drain).last_sequence == 200
    check_exact(platform, stored)
