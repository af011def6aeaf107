"""Shared by the consumer's tests: their own streams, and the dead letters in them."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.events import ConsumerContext, NATSConsumer, NATSConsumerConfig, ProcessingResult
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import ensure_streams
from support.lasting import lasting_client

Handler = Callable[[ConsumerContext], Awaitable[ProcessingResult]]
SUCCESS, RETRY, DEAD_LETTER = ProcessingResult


def in_full(config: NATSConsumerConfig) -> str:
    """As JSON for another process, with the addresses that a dump would hide."""
    servers = [server.get_secret_value() for server in config.servers]
    return json.dumps(json.loads(config.model_dump_json()) | {"servers": servers})


def new_prefix() -> str:
    return f"c{uuid.uuid4().hex[:8]}"


@dataclass
class Log:
    """Streams below a separate prefix, and a connection to read them."""

    url: str
    client: Client
    prefix: str = field(default_factory=new_prefix)

    @property
    def js(self) -> JetStreamContext:
        return self.client.jetstream(timeout=20)

    @property
    def names(self) -> StreamNames:
        p = self.prefix
        return StreamNames(
            f"EVENTS_{p}",
            f"DLQ_{p}",
            f"TOTALS_{p}",
            Subjects(p),
            attempts=f"ATTEMPTS_{p}",
        )

    def config(self, **changes: Any) -> NATSConsumerConfig:
        """A consumer of this log with short times."""
        names = self.names
        return NATSConsumerConfig(
            **{
                "servers": [self.url],
                "name": "ndvi-service",
                "version": "1.2.3",
                "stream_name": names.events,
                "dlq_stream_name": names.dead_letters,
                "totals_stream_name": names.totals,
                "attempts_stream_name": names.attempts,
                "dlq_subject_prefix": f"{self.prefix}.dlq",
                "consumer_name": "ndvi",
                "subject_filter": f"{self.prefix}.analysis.*",
                "max_retries": 0,
                "retry_delay_seconds": 0.05,
                "reconnect_time_wait": 0.2,
                "connect_timeout_seconds": 20,
                "max_concurrency": 4,
                **changes,
            }
        )

    async def publish(
        self, body: Any, subject: str = "analysis.ndvi", headers: dict[str, str] | None = None
    ) -> int:
        """Publish an event (bytes, or a value to write as JSON); its sequence."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        where = f"{self.prefix}.{subject}"
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(nats.errors.Error):
                    return (await self.js.publish(where, data, headers=headers, timeout=2)).seq
                await asyncio.sleep(0.1)

    async def stored(self, count: int, seconds: float = 60) -> list[RawStreamMsg]:
        """The messages of the dead-letter stream, once there are `count`; never more."""
        name = self.names.dead_letters

        async def last() -> int:
            with contextlib.suppress(nats.errors.Error):
                return (await self.js.stream_info(name)).state.last_seq
            return -1

        await until(lambda: _at_least(last, count), seconds)
        assert await last() == count
        return [await self.js.get_msg(name, sequence) for sequence in range(1, count + 1)]

    async def letters(self, count: int, seconds: float = 60) -> list[dict[str, Any]]:
        """The dead letters, once there are `count`."""
        return [json.loads(msg.data or b"") for msg in await self.stored(count, seconds)]

    async def pending(self, durable: str = "ndvi") -> tuple[int, int]:
        """How many events a consumer has still to receive, and to acknowledge."""
        info = await self.js.consumer_info(self.names.events, durable)
        return info.num_pending or 0, info.num_ack_pending or 0

    async def settled(self, durable: str = "ndvi", seconds: float = 60) -> None:
        """Wait until a consumer has acknowledged everything."""

        async def is_settled() -> bool:
            with contextlib.suppress(nats.errors.Error):
                return await self.pending(durable) == (0, 0)
            return False

        await until(is_settled, seconds)


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Log]:
    """A log with its streams."""

    client = await lasting_client(url)
    log = Log(url, client)
    await ensure_streams(log.js, log.names)
    try:
        yield log
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def running(
    config: NATSConsumerConfig, handler: Handler, subject: str | None = None
) -> AsyncIterator[NATSConsumer]:
    """A running consumer, closed at the end."""
    consumer = NATSConsumer(config)
    assert await consumer.connect()
    await consumer.subscribe(handler, subject)
    consumer.start_in_background()
    try:
        yield consumer
    finally:
        await consumer.close()


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.03)


async def seen(calls: list[Any], count: int, seconds: float = 60) -> None:
    """Wait until a list has `count` items."""

    async def enough() -> bool:
        return len(calls) >= count

    await until(enough, seconds)


async def _at_least(count_of: Callable[[], Awaitable[int]], count: int) -> bool:
    return await count_of() >= count


class Calls(list[ConsumerContext]):
    """A handler that records its calls, and returns or raises what it was given."""

    def __init__(self, *outcomes: ProcessingResult | BaseException) -> None:
        self.outcomes = outcomes
        self.at: list[float] = []

    async def __call__(self, context: ConsumerContext) -> ProcessingResult:
        self.append(context)
        self.at.append(time.monotonic())
        outcome = self.outcomes[min(len(self), len(self.outcomes)) - 1]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def is_pulling(consumer: NATSConsumer) -> bool:
    return consumer._subscriptions[0]._is_pulling


async def equals(awaitable: Awaitable[Any], value: Any) -> bool:
    return bool(await awaitable == value)
