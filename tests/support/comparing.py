"""Shared by tests of `dlq why` and `dlq contract`: a service that fails on some events only."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client

from sahool_dlq.events import ConsumerContext
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.redriving import Service

Event = dict[str, Any]


@dataclass
class Picky(Service):
    """A service that fails on the events for which `fails` is true."""

    fails: Callable[[Event], bool] = lambda _: False

    def is_cured(self, context: ConsumerContext) -> bool:
        """It has only one bug."""
        return not self.fails(json.loads(context.data))


def measured(count: int, seed: int = 7) -> Iterator[Event]:
    """Events of a fleet in which nothing is wrong."""
    chance = random.Random(seed)
    for number in range(count):
        yield {
            "event_id": f"e{number}",
            "source_service": "field-service",
            "tenant_id": f"farm-{chance.randrange(5)}",
            "crop": chance.choice(("wheat", "rice", "dates")),
            "unit": "ha",
            "area": round(chance.uniform(1, 50), 2),
        }


async def handle_all(
    settings: Settings,
    client: Client,
    service: Picky,
    events: list[Event],
    *,
    headers: Callable[[Event], Mapping[str, str]] = lambda _: {},
    subject: str = "analysis.ndvi",
    encode: Callable[[Event], bytes] = lambda event: json.dumps(event).encode(),
) -> None:
    """Publish events, let the service handle all of them, and drain its failures."""
    js = client.jetstream(timeout=60)
    where = f"{settings.subject_prefix}.{subject}"
    async with service.running():
        for event in events:
            await js.publish(where, encode(event), headers=dict(headers(event)))
        async with asyncio.timeout(60):
            while len(service.seen) < len(events):
                await asyncio.sleep(0.02)
            while not await _is_finished(settings, client, service):
                await asyncio.sleep(0.02)
    await drain_log(settings)


async def _is_finished(settings: Settings, client: Client, service: Picky) -> bool:
    info = await client.jetstream().consumer_info(
        settings.events_stream, service.durable or service.name
    )
    return not info.num_ack_pending and not info.num_pending
