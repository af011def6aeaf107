"""Erasures next to other erasures, tombstones, alerts and rewrites, and with missing rights."""

import asyncio
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import nats
import polars as pl
import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from sahool_dlq.embedded import NatsServer
from sahool_dlq.erasure import erase as steps
from sahool_dlq.erasure.from_postgres import count_rows, delete_rows
from sahool_dlq.erasure.from_stream import erase_messages
from sahool_dlq.errors import FencedError
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import erase_tenant, verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.postgres.database import database, migrate
from support.erasing import World, keeps
from support.platform_log import execute, failures, in_lake, letter, publish, query


async def test_deletions_do_not_queue_before_the_requests_of_others(
    settings: Settings, client: Client
) -> None:
    """The server handles requests in order: how many deletions precede another client's request."""
    stored = await publish(client, settings, map(letter, range(200)))
    async with connected(settings.nats_url) as ours:
        erasing = asyncio.create_task(erase_messages(ours, settings.dlq_stream, [*stored]))
        left = []
        while not erasing.done():
            info = await client.jetstream(timeout=60).stream_info(settings.dlq_stream)
            left.append(info.state.messages)
        assert await erasing is None
    assert max(before - after for before, after in zip([200, *left], left, strict=False)) < 50


async def test_an_erasure_first_learns_the_tombstones_that_a_lost_database_forgot(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(settings, client)
    await world.publish(world.letter(1), letter(2, tenant_id="other"))
    await world.publish(letter(3), is_kept=True)
    await drain_log(world.settings)
    with monkeypatch.context() as patched:
        patched.setattr(steps, "erase_messages", keeps)
        await world.erase()
    execute(settings, "DROP SCHEMA dlq CASCADE")
    migrate(settings.postgres_dsn.get_secret_value())
    await erase_tenant(world.settings, "other", actor="ann", reason="left, too")
    await drain_log(world.settings)
    await verify_stores(world.settings, is_repair=True)
    assert in_lake(settings)["dlq_sequence"].to_list() == [3]
    assert [row["dlq_sequence"] for row in failures(settings)] == [3]


async def test_a_writer_that_read_before_an_erasure_leaves_no_file_of_it(
    settings: Settings, client: Client, nats_server: NatsServer
) -> None:
    world = World(settings, client)
    await world.publish(world.letter(1), letter(2))
    await drain_log(world.settings)
    drain, compaction = (Lake(settings.lake).table("dead_letters") for _ in range(2))
    rows, now = [drain.read(file) for file in drain.files], datetime.now(UTC)
    await world.erase()
    with pytest.raises(FencedError):
        drain.append(rows[0], rows[0]["epoch"][0], 2)
    with pytest.raises(FencedError):
        compaction.replace(compaction.files, rows, now, is_data_change=False, is_compaction=True)
    assert world.places(nats_server) == set()
    assert in_lake(settings)["dlq_sequence"].to_list() == [2]


async def test_a_vacuum_that_deletes_the_same_files_does_not_stop_it(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(settings, client)
    await world.publish(world.letter(1))
    await drain_log(world.settings)
    delete = FileStore.delete

    def late(store: FileStore, paths: Iterable[str]) -> None:
        found = list(paths)
        delete(store, found)
        delete(store, found)

    monkeypatch.setattr(FileStore, "delete", late)
    assert (await world.erase()).lake_dead_letters == 1
    assert in_lake(settings).is_empty()


async def test_bodies_that_it_may_not_read_stop_nothing_else(
    settings: Settings, nats_server_factory: Callable[..., NatsServer]
) -> None:
    users = """
    authorization: { users: [ { user: all, password: x }, { user: some, password: x,
      permissions: { publish: { deny: "$JS.API.STREAM.MSG.GET.OBJ_sahool-dlq-bodies" } } } ] }
    """
    server = nats_server_factory(config=users)
    urls = {name: server.url.replace("://", f"://{name}:x@") for name in ("all", "some")}
    async with await nats.connect(urls["all"]) as client:
        await ensure_streams(client.jetstream(), settings.stream_names)
        world = World(settings.model_copy(update={"nats_url": SecretStr(urls["all"])}), client)
        await world.fill()
        world.settings = world.settings.model_copy(update={"nats_url": SecretStr(urls["some"])})
        report = await world.erase()
        assert report.left is not None
        assert "does not permit some to publish to $JS.API.STREAM.MSG.GET.OBJ_" in report.left
        assert world.held() == {"postgres": set(), "lake": set()}
        world.settings = world.settings.model_copy(update={"nats_url": SecretStr(urls["all"])})
        assert (await world.erase()).left is None
        assert world.places(server) == set()


def test_alerts_and_batches_of_a_tenant_whose_id_begins_the_same_stay(settings: Settings) -> None:
    tenant, other = "o'neil", "o'neil-2"
    for name in (tenant, other):
        scope = f"service s, tenant {name}"
        execute(
            settings,
            "WITH a AS (INSERT INTO alerts (rule, scope, subject, state, severity, value, above,"
            " since, detail, started_at, seen_at) VALUES ('r', %s, 's', 'resolved', 'x', 1, 1,"
            " now(), '', now(), now())) INSERT INTO alert_messages (kind, alert_ids, channel,"
            " title, body, created_at) VALUES ('firing', '{}', 'c', %s, %s, now())",
            *(scope, f"FIRING: r (+1 more): ({scope})", f"- {scope}: 3\n- more"),
        )
        literal = name.replace("'", "''")
        execute(
            settings,
            "INSERT INTO redrive_batches (id, trigger, requested_by, reason, state, planned,"
            " selection) VALUES (gen_random_uuid(), 'manual', 'a', 'b', 'done', 1, %s::jsonb)",
            json.dumps({"where": f"tenant_id = '{literal}'"}),
        )
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        assert count_rows(connection, tenant)["alert_messages"] == 1
        delete_rows(connection, tenant, actor="ann", reason="left", detail={})
    tables = pl.DataFrame(query(settings, "SELECT scope, title, body FROM alerts, alert_messages"))
    assert set(tables["scope"]) == {"service s, tenant [erased]", f"service s, tenant {other}"}
    assert set(tables["body"]) == {"[erased]", f"- service s, tenant {other}: 3\n- more"}
    left = query(settings, "SELECT selection::text AS s FROM redrive_batches ORDER BY s")
    assert [json.loads(row["s"]) for row in left] == [
        {"tenant_id": "[erased]"},
        {"where": "tenant_id = 'o''neil-2'"},
    ]
