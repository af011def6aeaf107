"""Shared by the doctor's tests: streams and consumers as people set them up, and their losses."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.doctor.diagnosis import Diagnosis, examine
from sahool_dlq.doctor.finding import Finding
from sahool_dlq.jetstream.acks import ACKS
from sahool_dlq.settings import Settings

SECOND = 1_000_000_000  # nanoseconds


class Zoo:
    """An account of a server, and a client in it."""

    def __init__(self, url: str, client: Client) -> None:
        self.url, self.client = url, client

    async def ask(self, what: str, **body: Any) -> Any:
        """The answer of the server's API."""
        data = json.dumps(body).encode() if body else b""
        return json.loads((await self.client.request(f"$JS.API.{what}", data, timeout=20)).data)

    async def stream(self, name: str, *subjects: str, **config: Any) -> None:
        """A stream, with the subjects `<name>.>` if none are given."""
        config = {"name": name, "subjects": subjects or [f"{name}.>"], **config}
        answer = await self.ask(f"STREAM.CREATE.{name}", **config)
        assert "error" not in answer, answer

    async def consumer(self, stream: str, name: str = "c", **config: Any) -> None:
        """A durable consumer, with explicit acknowledgements by default."""
        config = {"durable_name": name, "name": name, "ack_policy": "explicit", **config}
        request = {"stream_name": stream, "config": config}
        answer = await self.ask(f"CONSUMER.CREATE.{stream}.{name}", **request)
        assert "error" not in answer, answer

    async def publish(self, subject: str, count: int = 1, **headers: str) -> list[Any]:
        """Publish; the server's answers."""
        return [
            json.loads((await self.client.request(subject, b"{}", headers=headers or None)).data)
            for _ in range(count)
        ]

    async def pull(
        self, stream: str, consumer: str = "c", batch: int = 1, *, seconds: float = 0.3
    ) -> list[Msg]:
        """The messages that a consumer receives within this time."""
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        request = {"batch": batch, "expires": int(seconds * SECOND)}
        where = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        await self.client.publish(where, json.dumps(request).encode(), reply=inbox)
        found: list[Msg] = []
        while len(found) < batch:
            msg = await subscription.next_msg(timeout=seconds + 20)
            if not msg.reply.startswith(ACKS):
                break  # a status: its time is up
            found.append(msg)
        await subscription.unsubscribe()
        return found

    async def answer(self, msg: Msg, said: bytes) -> None:
        """Answer an event, and wait until the server has the answer."""
        await self.client.request(msg.reply, said, timeout=20)

    async def fail(self, stream: str, times: int, consumer: str = "c") -> list[int]:
        """Refuse this number of deliveries; their sequences."""
        found = []
        for _ in range(times):
            for msg in await self.pull(stream, consumer):
                await self.answer(msg, b"-NAK")
                found.append(msg.metadata.sequence.stream)
        return found

    async def messages(self, stream: str) -> int:
        """The number of stored messages."""
        return int((await self.ask(f"STREAM.INFO.{stream}"))["state"]["messages"])

    async def figures(self, stream: str, consumer: str = "c") -> Any:
        """CONSUMER.INFO."""
        return await self.ask(f"CONSUMER.INFO.{stream}.{consumer}")

    async def examine(self, **options: float) -> Diagnosis:
        """The findings of the doctor."""
        return await examine(Settings(nats_url=self.url), **{"listen_seconds": 0, **options})

    async def found(self, rule: str, subject: str, **options: float) -> Finding:
        """The only finding of a rule."""
        every = (await self.examine(**options)).findings
        of_rule = [each for each in every if (each.rule, each.subject) == (rule, subject)]
        assert len(of_rule) == 1, [(each.rule, each.subject) for each in every]
        return of_rule[0]

    async def rules(self, **options: float) -> set[tuple[str, str]]:
        """The rules that found something, and where."""
        return {(each.rule, each.subject) for each in (await self.examine(**options)).findings}


async def until(holds: Callable[[], Awaitable[Any]], seconds: float = 30) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Zoo]:
    """An empty account, and empty again afterwards."""
    client = await nats.connect(url)
    zoo = Zoo(url, client)
    try:
        yield zoo
    finally:
        for name in (await zoo.ask("STREAM.NAMES")).get("streams") or ():
            await zoo.ask(f"STREAM.DELETE.{name}")
        await client.close()
