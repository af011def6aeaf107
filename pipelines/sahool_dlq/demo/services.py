"""The fleet: six services on `NATSConsumer`, in one separate process.

    python -m sahool_dlq.demo.services CONFIG.json

Each handler does a little real work against a real upstream, and fails when that does.
"""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import psycopg
from pydantic import BaseModel, Field

from sahool_dlq.demo import agronomy
from sahool_dlq.demo.upstreams import ask
from sahool_dlq.demo.working_copy import load
from sahool_dlq.events import ConsumerContext, NATSConsumer, NATSConsumerConfig, ProcessingResult
from sahool_dlq.events.subscription import Handler

CREATE_TABLES = """
CREATE TABLE IF NOT EXISTS invoices (
    number TEXT PRIMARY KEY, amount NUMERIC NOT NULL CHECK (amount > 0));
CREATE SEQUENCE IF NOT EXISTS event_numbers
"""
_TILE_TIMEOUT_SECONDS = 0.25


class Alert(BaseModel):
    """The event of the notification service."""

    field_id: str
    severity: int = Field(ge=1, le=5)


class Fleet:
    """The handlers; `config` has nats, postgres_dsn, tiles, forecasts, sensors and
    working_copy.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._agronomy = load(config["working_copy"])
        self.versions = {"yield-service": self._agronomy.VERSION}  # the others are not deployed

    def handlers(self) -> dict[str, Handler]:
        """The handler of each service."""
        return {
            "ndvi-service": self.compute_ndvi,
            "irrigation-service": self.plan_irrigation,
            "soil-service": self.record_soil,
            "yield-service": self._agronomy.estimate,
            "billing-service": self.bill,
            "notification-service": self.notify,
        }

    async def compute_ndvi(self, context: ConsumerContext) -> ProcessingResult:
        """Fetch a tile; archived tiles are slow."""
        tile = json.loads(context.data)["tile"]
        async with asyncio.timeout(_TILE_TIMEOUT_SECONDS):
            await ask(self._config["tiles"], tile)
        return ProcessingResult.SUCCESS

    async def plan_irrigation(self, context: ConsumerContext) -> ProcessingResult:
        """Request a forecast, unless the event contains one."""
        if json.loads(context.data).get("forecast") is None:
            await ask(self._config["forecasts"], "tomorrow")
        return ProcessingResult.SUCCESS

    async def record_soil(self, context: ConsumerContext) -> ProcessingResult:
        """Read a sensor; a flaky one answers on the second try."""
        await ask(self._config["sensors"], json.loads(context.data)["sample"])
        return ProcessingResult.SUCCESS

    async def bill(self, context: ConsumerContext) -> ProcessingResult:
        """Write an invoice; a second one of the same number violates a constraint."""
        invoice = json.loads(context.data)
        async with await psycopg.AsyncConnection.connect(
            self._config["postgres_dsn"], autocommit=True
        ) as connection:
            await connection.execute(
                "INSERT INTO invoices (number, amount) VALUES (%s, %s)",
                [invoice["number"], invoice["amount"]],
            )
        return ProcessingResult.SUCCESS

    async def notify(self, context: ConsumerContext) -> ProcessingResult:
        """Check an alert, without sending it."""
        Alert.model_validate_json(context.data)
        return ProcessingResult.SUCCESS


SERVICES = {
    "ndvi-service": "analysis.ndvi_computed",
    "irrigation-service": "analysis.weather_updated",
    "soil-service": "analysis.soil_sampled",
    "yield-service": "analysis.yield_estimated",
    "billing-service": "actions.invoice_requested",
    "notification-service": "actions.alert_raised",
}
"""Service: subject without its prefix."""


async def run(config: dict[str, Any]) -> None:
    """Run all services until SIGTERM or SIGINT."""
    fleet = Fleet(config)
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    consumers = []
    for service, handler in fleet.handlers().items():
        consumer = NATSConsumer(
            NATSConsumerConfig(
                **config["nats"][service],
                name=service,
                version=fleet.versions.get(service, agronomy.VERSION),
                consumer_name=service,
                max_retries=2,
                retry_delay_seconds=0.2,
                max_concurrency=24,
                totals_interval_seconds=1,
            )
        )
        if not await consumer.connect():
            raise SystemExit(f"{service} cannot connect to NATS; the reason is above.")
        await consumer.subscribe(handler, subject=f"sahool.{SERVICES[service]}")
        consumer.start_in_background()
        consumers.append(consumer)
    await stop.wait()
    await asyncio.gather(*(consumer.close() for consumer in consumers))


if __name__ == "__main__":
    logging.basicConfig(level="WARNING", format="%(asctime)s %(name)s %(message)s")
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))
