"""Live failures for `dlq up`: a steady flow of events, and upstreams that fail and recover."""

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from sahool_dlq.demo.fleet import fleet, make_tables
from sahool_dlq.demo.opening import Opening
from sahool_dlq.demo.services import SERVICES
from sahool_dlq.demo.traffic import events, gateway, publish
from sahool_dlq.demo.upstreams import Upstreams
from sahool_dlq.demo.watching import watch
from sahool_dlq.jetstream.address import revealed, split_servers
from sahool_dlq.settings import Settings

__all__ = ["live"]

Say = Callable[[str], None]

_EVENTS_A_TURN, _TURN_SECONDS = 10, 2.0
_FAULTY = 0.25  # of the demo's share of events that no retry can help
_FIRST_OUTAGE_SECONDS, _OUTAGE_SECONDS, _HEALTHY_SECONDS = 45.0, 150.0, 450.0
_PAUSE_SECONDS = 5.0  # before the farm's database is asked again


async def live(
    home: Path,
    settings: Settings,
    farm_dsn: str,
    say: Say,
    start_run: Callable[[str], None],
    speed: float = 1,
) -> None:
    """Publish, fail and recover until cancelled.

    `say` gets texts about events, `start_run` starts a run of a deployment. Events and outages are
    `speed` times as fast.
    """
    async with Upstreams() as upstreams:
        access = {"servers": [revealed(each) for each in split_servers(settings.nats_url)]}
        make_tables(farm_dsn)
        with fleet(home, dict.fromkeys(SERVICES, access), farm_dsn, upstreams) as services:
            opening = Opening(settings, say, start_run)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_traffic(access, farm_dsn, speed))
                tasks.create_task(_weather(upstreams, opening, say, speed))
                tasks.create_task(watch(home, settings, services, say))
                tasks.create_task(opening.play())


async def _traffic(access: Mapping[str, Any], farm_dsn: str, speed: float) -> None:
    rng = random.Random()  # noqa: S311  (events of a demo)
    async with gateway(access) as publisher:
        while True:
            try:
                numbers = await _take_numbers(farm_dsn)
            except psycopg.OperationalError:  # it is down; its watcher reports this
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            await publish(publisher, list(events(numbers, rng, _FAULTY)))
            await asyncio.sleep(_TURN_SECONDS / speed)


async def _take_numbers(farm_dsn: str) -> list[int]:
    """Unused event numbers, also after a restart: an invoice's number is its key."""
    async with await psycopg.AsyncConnection.connect(farm_dsn, autocommit=True) as connection:
        rows = await connection.execute(
            "SELECT nextval('event_numbers') FROM generate_series(1, %s)", [_EVENTS_A_TURN]
        )
        return [number for (number,) in await rows.fetchall()]


async def _weather(upstreams: Upstreams, opening: Opening, say: Say, speed: float) -> None:
    await asyncio.sleep(_FIRST_OUTAGE_SECONDS / speed)
    await upstreams.heal()
    say("The tile server is quick again, the forecast service is back")
    opening.is_healed.set()
    outages = (
        (upstreams.slow_down, "The tile server is slow", "The tile server is quick again"),
        (upstreams.stop_forecasts, "The forecast service is away", "The forecast service is back"),
    )
    for fail, begin, end in itertools.cycle(outages):
        await asyncio.sleep(_HEALTHY_SECONDS / speed)
        fail()
        say(begin)
        await asyncio.sleep(_OUTAGE_SECONDS / speed)
        await upstreams.heal()
        say(end)
