"""A separate platform for each test: prefix, streams, database and lake."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from sahool_dlq.embedded import NatsServer
from sahool_dlq.embedded.server import HOST, free_port
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario
from support.consumer_log import Log, opened
from support.erasing import World


@pytest.fixture
def settings(nats_url: str, migrated_dsn: str, tmp_path: Path) -> Settings:
    """Settings of a platform on the session's servers, with a migrated database."""
    prefix = f"t{uuid.uuid4().hex[:8]}"
    return Settings(
        home=tmp_path,
        nats_url=nats_url,
        postgres_dsn=migrated_dsn,
        lake_uri=str(tmp_path / "lake"),
        subject_prefix=prefix,
        events_stream=f"EVENTS_{prefix}",
        dlq_stream=f"DLQ_{prefix}",
        totals_stream=f"TOTALS_{prefix}",
        attempts_stream=f"ATTEMPTS_{prefix}",
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    """A connection to the session's NATS, on which the platform's streams exist."""
    connection = await nats.connect(settings.nats_url.get_secret_value())
    await ensure_streams(connection.jetstream(timeout=60), settings.stream_names)
    yield connection
    await connection.close()


@pytest.fixture
async def log(nats_url: str) -> AsyncIterator[Log]:
    """Streams for one consumer, without a database."""
    async with opened(nats_url) as log:
        yield log


@pytest.fixture
async def world(settings: Settings, client: Client) -> World:
    """A platform with failures of two tenants, one of which is to be erased."""
    world = World(settings, client)
    await world.fill()
    return world


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake of four weeks up to now with every kind of problem, without any server."""
    folder = tmp_path_factory.mktemp("simulated")
    settings = Settings(home=folder, lake_uri=str(folder / "lake"))
    into_lake(settings, Scenario(datetime.now(UTC), days=29, hourly=1, seed=3))
    return settings


@pytest.fixture
async def cluster(nats_server_factory: Callable[..., NatsServer]) -> list[NatsServer]:
    """A cluster of three servers."""
    ports = [free_port("NATS") for _ in range(3)]
    routes = ", ".join(f'"nats://{HOST}:{port}"' for port in ports)
    configs = [
        f'cluster {{ name: c, listen: "{HOST}:{port}", routes: [{routes}] }}' for port in ports
    ]
    return list(
        await asyncio.gather(
            *(asyncio.to_thread(nats_server_factory, config=config) for config in configs)
        )
    )
