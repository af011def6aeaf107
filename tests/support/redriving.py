"""Shared by tests of redrives: a service that fails until it is told not to."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client

from sahool_dlq.events import ConsumerContext, NATSConsumer, NATSConsumerConfig, ProcessingResult
from sahool_dlq.events.letter_writer import Tell
from sahool_dlq.jobs.redrive import redrive
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database

FAST = {"redrive_floor_per_second": 1_000.0, "redrive_delay_seconds": 0.0}
TIMEOUTS = Selection(error_types=("TimeoutError",))


@dataclass
class Service:
    """A service whose handler raises `error` as long as there is one."""

    settings: Settings
    error: Exception | None = None
    seen: list[ConsumerContext] = field(default_factory=list)
    name: str = "ndvi"
    subject: str = "analysis.*"  # below the prefix
    version: str | None = None  # with one, it also publishes its totals
    durable: str = ""  # its name, where that is another than the service's

    async def handle(self, context: ConsumerContext) -> ProcessingResult:
        self.seen.append(context)
        if self.error is not None and not self.is_cured(context):
            raise type(self.error)(
                *self.error.args
            )  # a new one, because a traceback grows when it is raised again
        return ProcessingResult.SUCCESS

    def is_cured(self, context: ConsumerContext) -> bool:
        """Whether this event succeeds although others fail."""
        return False

    @contextlib.asynccontextmanager
    async def running(self, on_trouble: Tell | None = None) -> AsyncIterator["Service"]:
        settings = self.settings
        config = NATSConsumerConfig(
            servers=[settings.nats_url],
            name=self.name,
            consumer_name=self.durable or self.name,
            stream_name=settings.events_stream,
            dlq_stream_name=settings.dlq_stream,
            dlq_subject_prefix=f"{settings.subject_prefix}.dlq",
            max_retries=0,
            max_concurrency=8,
            version=self.version,
            totals_stream_name=settings.totals_stream,
            totals_interval_seconds=0.2 if self.version else 30,
        )
        consumer = NATSConsumer(config, on_trouble)
        assert await consumer.connect()
        await consumer.subscribe(self.handle, f"{settings.subject_prefix}.{self.subject}")
        consumer.start_in_background()
        try:
            yield self
        finally:
            await consumer.close()


async def publish(client: Client, settings: Settings, count: int, **body: Any) -> None:
    for number in range(count):
        payload = json.dumps({"event_id": f"e{number}", **body}).encode()
        await client.jetstream(timeout=60).publish(
            f"{settings.subject_prefix}.analysis.ndvi", payload, headers={"trace": f"t{number}"}
        )


async def dead_letters(client: Client, settings: Settings, count: int) -> None:
    """Wait until the log has `count` messages."""
    async with asyncio.timeout(20):
        while (await client.jetstream().stream_info(settings.dlq_stream)).state.messages < count:
            await asyncio.sleep(0.05)


async def redrive_timeouts(settings: Settings, **overrides: Any) -> RedriveReport | None:
    return await redrive(
        settings,
        overrides.pop("selection", TIMEOUTS),
        trigger=overrides.pop("trigger", "automatic"),
        requested_by="test",
        reason="test",
    )


def rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        return connection.execute(sql).fetchall()


def quick(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"redrive_timeout_seconds": 5, **FAST, **changes})


def event_ids(service: Service) -> list[str]:
    """The events that a service received, in order."""
    return [json.loads(context.data)["event_id"] for context in service.seen]


async def fail(
    settings: Settings, client: Client, service: Service, count: int, **body: Any
) -> None:
    """Let a running service fail on this number of events, then delete its record of them."""
    await publish(client, settings, count, **body)
    await dead_letters(client, settings, count)
    service.seen.clear()


async def seen(service: Service, count: int) -> None:
    """Wait until a service has received this number of events."""
    async with asyncio.timeout(60):
        while len(service.seen) < count:
            await asyncio.sleep(0.01)
