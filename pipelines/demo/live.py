"""Live failures for `dlq up --fleet`: a trickle of events, and upstreams that fail now and then."""

import asyncio
import random
from pathlib import Path

from pipelines.demo.fleet import fleet
from pipelines.demo.traffic import events, publish
from pipelines.demo.upstreams import Upstreams
from pipelines.jetstream.address import Server
from pipelines.settings import Settings

_EVENTS_A_SECOND = 5
_OUTAGE_SECONDS, _HEALTHY_SECONDS = 180, 420


async def live(home: Path, settings: Settings, farm_dsn: str) -> None:
    """Publish and fail until cancelled: three minutes of outage, seven without."""
    async with Upstreams() as upstreams:
        with fleet(home, settings.nats_url, farm_dsn, upstreams):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_traffic(settings.nats_url))
                tasks.create_task(_weather(upstreams))


async def _traffic(url: Server) -> None:
    rng = random.Random()  # noqa: S311  (events of a demo)
    while True:
        async for _ in publish(url, events(_EVENTS_A_SECOND * 2, rng)):
            pass
        await asyncio.sleep(2)


async def _weather(upstreams: Upstreams) -> None:
    while True:
        await asyncio.sleep(_OUTAGE_SECONDS)
        await upstreams.heal()
        await asyncio.sleep(_HEALTHY_SECONDS)
        upstreams.fail()
