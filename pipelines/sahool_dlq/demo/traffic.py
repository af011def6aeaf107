"""The events for the fleet, some of which fail."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sahool_dlq.events import NATSConfig, NATSPublisher
from sahool_dlq.jetstream.address import shown

GATEWAY = "field-gateway"
"""The service that publishes the events."""
TENANTS = ("green-valley", "al-waha", "north-ridge", "delta-farms", "sunrise-coop")
PLANTED_SECRETS = ("hunter2-planted", "farmer.planted@example.org")
"""Secrets in some events; neither may reach a sink."""


Event = tuple[str, dict[str, Any]]
"""Subject without prefix, and body."""


def events(numbers: Iterable[int], rng: random.Random, faulty: float = 1) -> Iterator[Event]:
    """One event for each number, which no other event may have.

    `faulty` is the share that no retry can help, in addition to the demo's share: 3 %.
    """
    for number in numbers:
        [kind] = rng.choices(list(_MAKERS), weights=[8, 6, 5, 5, 3, 3])
        body = {
            "event_id": f"evt-{number:06d}",
            "tenant_id": rng.choices(TENANTS, weights=[5, 3, 2, 2, 1])[0],
            "field_id": f"field-{rng.randrange(200)}",
            "source_service": GATEWAY,
            **_MAKERS[kind](number, rng, faulty),
        }
        yield kind, body


@asynccontextmanager
async def gateway(access: Mapping[str, Any]) -> AsyncIterator[NATSPublisher]:
    """The publisher of the events, with these fields of `Access`.

    Raises ConnectionError if it cannot connect.
    """
    config = NATSConfig(**access, name=GATEWAY)
    publisher = NATSPublisher(config)
    if not await publisher.connect():
        raise ConnectionError(f"{GATEWAY} cannot connect to NATS at {shown(config.servers)}.")
    try:
        yield publisher
    finally:
        await publisher.close()


async def publish(publisher: NATSPublisher, traffic: Sequence[Event]) -> list[str]:
    """Publish events at once; returns the ids of those that the server has acknowledged."""
    results = await asyncio.gather(
        *(
            publisher.publish(f"sahool.{subject}", json.dumps(body).encode())
            for subject, body in traffic
        )
    )
    return [
        body["event_id"]
        for (_, body), is_published in zip(traffic, results, strict=True)
        if is_published
    ]


def _ndvi(number: int, rng: random.Random, _faulty: float) -> dict[str, Any]:
    kind = "archive" if rng.random() < 0.2 else "live"
    return {"tile": f"T{number % 60:02d}-{kind}", "cloud_cover": round(rng.random(), 4)}


def _weather(number: int, rng: random.Random, _faulty: float) -> dict[str, Any]:
    forecast = None if rng.random() < 0.15 else {"rain_mm": round(rng.random() * 20, 1)}
    return {"station": f"ST-{number % 40}", "forecast": forecast}


def _soil(number: int, rng: random.Random, _faulty: float) -> dict[str, Any]:
    return {"sample": f"S{number}-{'flaky' if rng.random() < 0.2 else 'good'}"}


def _yield(_number: int, rng: random.Random, faulty: float) -> dict[str, Any]:
    area = 0 if rng.random() < 0.06 * faulty else round(rng.uniform(0.5, 40), 2)
    return {"field": {"plants": rng.randrange(10_000, 90_000), "area_hectares": area}}


def _invoice(number: int, rng: random.Random, faulty: float) -> dict[str, Any]:
    unique = f"INV-{number}"
    return {
        "number": "INV-STANDING-ORDER" if rng.random() < 0.1 * faulty else unique,
        "amount": round(rng.uniform(10, 900), 2),
        "password": PLANTED_SECRETS[0],
    }


def _alert(number: int, rng: random.Random, faulty: float) -> dict[str, Any]:
    severity = 9 if rng.random() < 0.1 * faulty else rng.randrange(1, 6)
    return {"severity": severity, "note": f"call {PLANTED_SECRETS[1]} about alert {number}"}


_MAKERS = {
    "analysis.ndvi_computed": _ndvi,
    "analysis.weather_updated": _weather,
    "analysis.soil_sampled": _soil,
    "analysis.yield_estimated": _yield,
    "actions.invoice_requested": _invoice,
    "actions.alert_raised": _alert,
}
