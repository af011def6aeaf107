"""Shared by tests of handlers that nats-py calls: a durable consumer, and a loop that pulls."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from support.consumer_log import Log
from support.lasting import lasting_client

Handle = Callable[[Msg], Awaitable[None]]


@contextlib.asynccontextmanager
async def pulling(
    log: Log, handle: Handle, url: str = "", durable: str = "plain", **config: Any
) -> AsyncIterator[JetStreamContext]:
    """The loop of nats-py's own guide, on a separate connection."""

    client = await lasting_client(url or log.url)
    js = client.jetstream(timeout=20)
    wanted = nats.js.api.ConsumerConfig(**{"ack_wait": 30.0, **config})
    subject = f"{log.prefix}.analysis.>"
    subscription = await js.pull_subscribe(subject, durable, log.names.events, wanted)

    async def pull() -> None:
        while True:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                for msg in await subscription.fetch(4, timeout=1):
                    await handle(msg)

    task = asyncio.create_task(pull())
    try:
        yield js
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await client.close()


def came_again(caplog: pytest.LogCaptureFixture) -> Callable[[], Awaitable[bool]]:
    """Whether an event was delivered again during its call."""

    async def is_said() -> bool:
        return "came again while it was being handled" in caplog.text

    return is_said
