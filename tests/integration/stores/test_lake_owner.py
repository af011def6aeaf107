"""A lake belongs to one platform: a second one is refused; restores, moves, older lakes are not."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from sahool_dlq.embedded import PostgresServer
from sahool_dlq.errors import LakeError
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.upkeep import erase_tenant, regroup_history, verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.postgres.database import migrate
from support.platform_log import check_exact, execute, in_lake, letter, publish, query, run_drain


@pytest.fixture
def other_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """A second database that is migrated and empty."""
    dsn = postgres_server.create_database("other_platform")
    migrate(dsn)
    yield dsn
    postgres_server.drop_database("other_platform")


@pytest.fixture
async def other(settings: Settings, other_dsn: str) -> AsyncIterator[Settings]:
    """Another platform, with its own streams and database, that is given the same lake."""
    names = {
        name: f"OTHER_{getattr(settings, name)}"
        for name in ("events_stream", "dlq_stream", "totals_stream", "attempts_stream")
    }
    prefix = f"other{settings.subject_prefix}"
    other = settings.model_copy(
        update=names
        | {"subject_prefix": prefix, "postgres_dsn": type(settings.postgres_dsn)(other_dsn)}
    )
    connection = await nats.connect(other.nats_url.get_secret_value())
    await ensure_streams(connection.jetstream(timeout=60), other.stream_names)
    yield other
    await connection.close()


def own(settings: Settings) -> str | None:
    rows = query(settings, "SELECT id FROM platform")
    return rows[0]["id"] if rows else None


async def test_a_second_platform_is_refused_and_writes_nothing(
    settings: Settings, client: Client, other: Settings
) -> None:
    stored = await publish(client, settings, map(letter, range(20)))
    await drain_log(settings)
    assert own(settings) == Lake(settings.lake).owner
    assert (own(settings) or "").startswith(f"{settings.subject_prefix}/")
    await publish(client, other, map(letter, range(30)))
    for _ in range(2):
        with pytest.raises(LakeError, match="belongs to another platform"):
            await drain_log(other)
        execute(other, "INSERT INTO platform (id) VALUES ('other/1') ON CONFLICT DO NOTHING")
    with pytest.raises(LakeError, match="belongs to another platform"):
        await verify_stores(other)
    with pytest.raises(LakeError, match="belongs to another platform"):
        await verify_stores(other, is_repair=True)
    with pytest.raises(LakeError, match="belongs to another platform"):
        build_all_marts(other)
    with pytest.raises(LakeError, match="belongs to another platform"):
        regroup_history(other)
    with pytest.raises(LakeError, match="belongs to another platform"):
        await erase_tenant(other, "tenant-1", actor="ann", reason="they left")
    check_exact(settings, stored)
    assert (await verify_stores(settings)).findings == ()


async def test_a_platform_that_shares_the_stream_is_refused_all_the_same(
    settings: Settings, client: Client, other: Settings
) -> None:
    """The lake knows its stream, but not its subjects."""
    await publish(client, settings, map(letter, range(5)))
    await drain_log(settings)
    beside = other.model_copy(update={"dlq_stream": settings.dlq_stream})
    await client.jetstream().delete_stream(other.dlq_stream)
    config = (await client.jetstream().stream_info(settings.dlq_stream)).config
    config.subjects = [f"{p.subject_prefix}.{s}" for p in (settings, other) for s in ("dlq.>",)]
    await client.jetstream().update_stream(config)
    await publish(client, beside, map(letter, range(5)))
    with pytest.raises(LakeError, match="belongs to another platform"):
        await drain_log(beside)


async def test_an_older_lake_gets_the_id_of_the_platform_that_drains_into_it(
    settings: Settings, client: Client
) -> None:
    stored = await publish(client, settings, map(letter, range(20)))
    await drain_log(settings)
    execute(settings, "TRUNCATE platform")
    shutil.rmtree(settings.lake)
    await drain_log(settings)
    assert own(settings) == Lake(settings.lake).owner
    log = Path(settings.lake) / "dead_letters" / "_delta_log"
    without = [file for file in log.glob("*.json") if "dlq.platform" in file.read_text()]
    assert len(without) == 1  # once, not by each drain
    check_exact(settings, stored)


async def test_a_database_that_was_lost_or_is_older_than_the_id_learns_it_from_the_lake(
    settings: Settings, client: Client, other_dsn: str
) -> None:
    stored = await publish(client, settings, map(letter, range(20)))
    await drain_log(settings)
    first = own(settings)
    execute(settings, "TRUNCATE platform")
    stored |= await publish(client, settings, map(letter, range(20, 30)))
    await drain_log(settings)
    assert own(settings) == first
    fresh = settings.model_copy(update={"postgres_dsn": type(settings.postgres_dsn)(other_dsn)})
    await drain_log(fresh)
    assert own(fresh) == first == Lake(settings.lake).owner
    check_exact(fresh, stored)


async def test_where_database_and_stream_are_new_a_person_says_whose_lake_it_is(
    settings: Settings, client: Client, other_dsn: str
) -> None:
    await publish(client, settings, map(letter, range(20)))
    await drain_log(settings)
    await client.jetstream().delete_stream(settings.dlq_stream)
    await ensure_streams(client.jetstream(), settings.stream_names)
    await publish(client, settings, map(letter, range(5)))
    fresh = settings.model_copy(update={"postgres_dsn": type(settings.postgres_dsn)(other_dsn)})
    status, _, errors = await run_drain(fresh)
    assert (status, errors.count("\n")) == (1, 1)
    assert "dlq drain --adopt-lake" in errors
    status, _, errors = await run_drain(fresh, "--adopt-lake")
    assert status == 0, errors
    assert own(fresh) == Lake(settings.lake).owner
    assert in_lake(fresh).height == 25
    assert (await drain_log(fresh)).drained == 0
