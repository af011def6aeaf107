"""Shared by the bridge's tests: a platform, and consumers without our library."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from sahool_dlq.jetstream.streams import ensure_advisory_stream, ensure_streams
from sahool_dlq.settings import Settings


@dataclass
class Platform:
    """Streams of a platform, and the events and foreign consumers on them."""

    settings: Settings
    client: Client

    @property
    def js(self) -> JetStreamContext:
        return self.client.jetstream(timeout=60)

    async def publish(self, *bodies: Any, subject: str = "analysis.ndvi") -> None:
        """Publish events on the event stream."""
        where = f"{self.settings.subject_prefix}.{subject}"
        for body in bodies:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            await self.js.publish(where, data, headers={"Trace": "t1"})

    async def fail(
        self, durable: str, answers: dict[int, bytes], *, stream: str | None = None
    ) -> None:
        """A bare nats-py consumer with max_deliver 2 that gives these answers by sequence.

        Events without an answer here are refused until they are given up.
        """
        config = ConsumerConfig(max_deliver=2, ack_wait=5)
        sub = await self.js.pull_subscribe(
            "", durable, stream=stream or self.settings.events_stream, config=config
        )
        while True:
            try:
                arrived = await sub.fetch(10, timeout=0.3)
            except TimeoutError:
                info = await sub.consumer_info()
                if info.num_pending or info.num_ack_pending:
                    continue  # the server says that an event is exhausted only to another pull
                break
            for msg in arrived:
                answer = answers.get(msg.metadata.sequence.stream, b"-NAK")
                await self.client.publish(msg.reply, answer)
        await sub.unsubscribe()
        await self.client.flush()

    async def letters(self) -> list[dict[str, Any]]:
        """The dead letters in the log, by the sequence of their event."""
        name = self.settings.dlq_stream
        last = (await self.js.stream_info(name)).state.last_seq
        stored = [await self.js.get_msg(name, sequence) for sequence in range(1, last + 1)]
        letters = [json.loads(msg.data or b"") for msg in stored]
        return sorted(letters, key=lambda letter: letter.get("original_sequence", 0))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Platform]:
    """A platform on a separate server, whose streams are deleted at the end."""
    prefix = settings.subject_prefix
    own = {"advisory_stream": f"ADV_{prefix}", "ack_stream": f"ACKS_{prefix}"}
    settings = settings.model_copy(update=own)
    client = await nats.connect(settings.nats_url.get_secret_value())
    await ensure_streams(client.jetstream(), settings.stream_names)
    await ensure_advisory_stream(client.jetstream(), settings.stream_names)
    yield Platform(settings, client)
    for stream in await client.jetstream().streams_info():  # the next test has its own advisories
        await client.jetstream().delete_stream(str(stream.config.name))
    await client.close()


async def refuse(client: Client, msg: Msg) -> None:
    """Refuse a delivery, and wait until the server has processed it: it may process the next pull
    first.
    """
    await client.request(msg.reply, b"-NAK", timeout=30)
