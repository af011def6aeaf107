"""The services of `dlq up`: after an hour the platform works and shows failures of all kinds."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from sahool_dlq.demo.fleet import FLEET_LOG
from sahool_dlq.demo.live import live
from sahool_dlq.embedded import NatsServer
from sahool_dlq.jobs.drain import drain_log, migrate_all
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.redrive import redrive, transient_selection
from sahool_dlq.settings import Settings

SPEED = 20.0  # an hour in three minutes


@pytest.fixture
async def farm(
    nats_server_factory: Callable[..., NatsServer], database_dsn: str, tmp_path: Path
) -> Settings:
    """A separate platform: the fleet's subjects are fixed."""
    settings = Settings(
        home=tmp_path,
        nats_url=nats_server_factory().url,
        postgres_dsn=database_dsn,
        lake_uri=str(tmp_path / "lake"),
        redrive_delay_seconds=0,
        redrive_timeout_seconds=20,
        redrive_floor_per_second=100,
    )
    await migrate_all(settings)
    return settings


@pytest.fixture
async def farm_client(farm: Settings) -> AsyncIterator[Client]:
    client = await nats.connect(farm.nats_url.get_secret_value())
    yield client
    await client.close()


@contextlib.asynccontextmanager
async def running(
    farm: Settings, start_run: Callable[[str], None], speed: float = SPEED
) -> AsyncIterator[list[str]]:
    """The running fleet, and its output."""
    said: list[str] = []
    dsn = farm.postgres_dsn.get_secret_value()
    work = asyncio.create_task(live(farm.home, farm, dsn, said.append, start_run, speed))
    try:
        yield said
        assert not work.done()
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def until_said(said: list[str], words: str) -> str:
    deadline = time.monotonic() + 420
    while not (found := [line for line in said if words in line]):
        assert time.monotonic() < deadline, "; ".join(said)
        await asyncio.sleep(0.1)
    return found[0]


async def published(client: Client, count: int) -> list[dict[str, Any]]:
    """The events, once there are `count`, each as it was published."""
    js = client.jetstream(timeout=60)
    async with asyncio.timeout(240):
        while (last := (await js.stream_info("SAHOOL_EVENTS")).state.last_seq) < count:
            await asyncio.sleep(0.1)
    bodies = [(await js.get_msg("SAHOOL_EVENTS", n + 1)).data or b"{}" for n in range(last)]
    return [json.loads(body) for body in bodies]


async def test_numbers_go_on_after_a_restart_and_few_events_die(
    farm: Settings, farm_client: Client
) -> None:
    async with running(farm, lambda _: None) as said:
        await until_said(said, "The tile server is quick again, the forecast service is back")
        before = len(await published(farm_client, 400))
    async with running(farm, lambda _: None):
        events = await published(farm_client, before + 400)
    ids = Counter(event["event_id"] for event in events)
    assert max(ids.values()) == 1
    invoices = [event["number"] for event in events if "number" in event]
    ordinary = [number for number in invoices if number != "INV-STANDING-ORDER"]
    assert len(ordinary) > 20
    assert len(set(ordinary)) == len(ordinary)
    js = farm_client.jetstream(timeout=60)
    dead = (await js.stream_info("SAHOOL_DLQ")).state.last_seq
    letters = [
        json.loads((await js.get_msg("SAHOOL_DLQ", number + 1)).data or b"{}")
        for number in range(dead)
    ]
    assert 0 < len(letters) < 0.15 * len(events)
    doubled = [each for each in letters if each["error_type"].endswith("UniqueViolation")]
    numbers = Counter(each["original_data"]["number"] for each in doubled)
    del numbers["INV-STANDING-ORDER"]
    assert numbers.total() <= 16  # what was in hand at the restart may come again


async def test_the_first_failures_are_drained_grouped_and_cured(farm: Settings) -> None:
    def start_run(deployment: str) -> None:
        """Do the work of the deployment without Prefect."""
        asyncio.run(jobs[deployment]())

    async def drain() -> None:
        await drain_log(farm)
        build_all_marts(farm)

    async def cure() -> None:
        await redrive(
            farm, transient_selection(farm), trigger="automatic", requested_by="x", reason="x"
        )

    jobs = {"drain-dlq": drain, "redrive-transient": cure}
    async with running(farm, start_run, speed=1) as said:  # the next outage is minutes away
        await until_said(said, "are cured by an automatic redrive")
    order = [said.index(line) for line in said if line.startswith(("The first", "They are"))]
    assert order == sorted(order)
    assert len(order) == 3


async def test_a_part_that_dies_is_reported(farm: Settings, farm_client: Client) -> None:
    async with running(farm, lambda _: None) as said:
        pause = b'{"pause_until": "2100-01-01T00:00:00Z"}'
        where = "$JS.API.CONSUMER.PAUSE.SAHOOL_EVENTS.billing-service"
        async with asyncio.timeout(240):  # until the service has made its consumer
            while b'"error"' in (await farm_client.request(where, pause, timeout=20)).data:
                await asyncio.sleep(0.5)
        line = await until_said(said, "billing-service stopped")
        assert "is paused until 2100-01-01" in line
        assert FLEET_LOG in line
        await farm_client.request(where, b"{}", timeout=20)
        await until_said(said, "billing-service works again")
        os.kill(services_below(farm.home), signal.SIGKILL)
        await until_said(said, "The six services ended")


def services_below(home: Path) -> int:
    """The process id of the fleet, not of its guard."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if str(home / "fleet.json").encode() in words:
                return int(entry.parent.name)
    raise AssertionError("there is no fleet")
