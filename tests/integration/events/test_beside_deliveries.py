"""Events that are delivered again too early, or that the server would not deliver again."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import with_dead_letters
from support.consumer_log import Log, opened, seen, until
from support.plain_handlers import Handle, came_again, pulling

DENIED = """
authorization {
  users: [
    { user: "admin", password: "secret" }
    { user: "blind", password: "secret", permissions: {
        publish: { deny: ["$JS.API.CONSUMER.INFO.>"] } } }
    { user: "deaf", password: "secret", permissions: {
        publish: { deny: ["$JS.API.CONSUMER.INFO.>"] }
        subscribe: { deny: ["$JS.EVENT.>"] } } }
  ]
}
"""


@pytest.mark.parametrize("fails", [False, True])
async def test_an_event_that_comes_again_while_it_is_handled_is_handled_once(
    log: Log, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    calls: list[int] = []
    is_over = asyncio.Event()

    @with_dead_letters(log.config(max_retries=1))
    async def handle(msg: Msg) -> None:
        calls.append(1)
        if len(calls) == 1:
            time.sleep(1.5)  # noqa: ASYNC251  (what is tested: nothing else runs for so long)
            await is_over.wait()
        if fails:
            raise ValueError("bad")

    with caplog.at_level(logging.INFO):
        async with pulling(log, handle, ack_wait=1), pulling(log, handle, ack_wait=1):
            await log.publish({})
            await until(came_again(caplog))
            assert calls == [1]
            is_over.set()
            await log.settled("plain")
    assert len(calls) == 1 + fails
    letters = await log.letters(int(fails))
    assert all((each["retry_count"], len(each["attempts"])) == (1, 2) for each in letters)


async def test_an_event_comes_again_to_a_handler_whose_connection_is_closed(log: Log) -> None:
    """If a call can no longer be answered, it uses the connection of the next delivery."""
    calls: list[int] = []
    is_over = asyncio.Event()

    @with_dead_letters(log.config())
    async def handle(msg: Msg) -> None:
        calls.append(1)
        await is_over.wait()

    durable = ConsumerConfig(durable_name="plain", ack_wait=1, ack_policy=AckPolicy.EXPLICIT)
    await log.js.add_consumer(log.names.events, durable)
    await log.publish({})
    first = await nats.connect(log.url)
    sub = await first.jetstream().pull_subscribe_bind("plain", log.names.events)
    [msg] = await sub.fetch(1, timeout=10)
    call = asyncio.create_task(handle(msg))
    await seen(calls, 1)
    await first.close()
    second = log.client.jetstream()
    sub = await second.pull_subscribe_bind("plain", log.names.events)
    [again] = await sub.fetch(1, timeout=20)
    await handle(again)
    is_over.set()
    await call
    await log.settled("plain")
    assert calls == [1]


async def test_what_is_cut_off_at_its_last_delivery_is_kept(log: Log) -> None:
    calls: list[int] = []

    @with_dead_letters(log.config(max_retries=9))
    async def handle(msg: Msg) -> None:
        calls.append(1)
        await asyncio.Event().wait()

    async with pulling(log, handle, max_deliver=1):
        await log.publish({"n": 1})
        await seen(calls, 1)
    [letter] = await log.letters(1)
    await log.settled("plain")
    assert (letter["dlq_reason"], letter["original_data"]) == ("max_deliveries", {"n": 1})
    assert "max_deliver is 1" in letter["error_message"]


@contextlib.asynccontextmanager
async def pulling_bound(log: Log, handle: Handle, user: str) -> AsyncIterator[None]:
    """The loop of `pulling` for a user without the right to read its consumer."""

    async def ignore(_: Exception) -> None: ...

    url = log.url.replace("admin", user)
    client = await nats.connect(url, error_cb=ignore)
    sub = await client.jetstream().pull_subscribe_bind("plain", log.names.events)

    async def pull() -> None:
        while True:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                for msg in await sub.fetch(4, timeout=1):
                    await handle(msg)

    task = asyncio.create_task(pull())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await client.close()


@contextlib.asynccontextmanager
async def denied(start: Callable[..., NatsServer], **durable: Any) -> AsyncIterator[Log]:
    """A server whose other users may not read the consumer `plain`."""
    url = start(config=DENIED).url.replace("nats://", "nats://admin:secret@")
    async with opened(url) as log:
        config = ConsumerConfig(durable_name="plain", ack_policy=AckPolicy.EXPLICIT, **durable)
        await log.js.add_consumer(log.names.events, config)
        yield log


@pytest.mark.parametrize("max_deliver", [1, 3])
async def test_a_limit_that_may_not_be_asked_for_loses_no_failure(
    nats_server_factory: Callable[..., NatsServer], max_deliver: int
) -> None:
    async with denied(nats_server_factory, max_deliver=max_deliver, ack_wait=30) as log:
        calls: list[int] = []

        @with_dead_letters(log.config(max_retries=9, retry_delay_seconds=0.05))
        async def handle(msg: Msg) -> None:
            calls.append(json.loads(msg.data))
            raise ValueError(f"bad {calls[-1]}")

        async with pulling_bound(log, handle, "blind"):
            await log.publish(1)
            await log.letters(1)
            await log.publish(2)  # the limit is known from now on
            letters = await log.letters(2)
            await log.settled("plain")
    assert calls == [1] * max_deliver + [2] * max_deliver
    assert [each["error_message"] for each in letters] == ["bad 1", "bad 2"]
    assert {each["dlq_reason"] for each in letters} == {"max_retries_exceeded"}
    assert {each["handler"].rpartition(".")[2] for each in letters} == {"handle"}
    assert [len(each["attempts"]) for each in letters] == [max_deliver] * 2


async def test_an_ack_wait_that_may_not_be_asked_for_calls_no_handler_twice(
    nats_server_factory: Callable[..., NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    async with denied(nats_server_factory, ack_wait=1) as log:
        calls: list[int] = []
        is_over = asyncio.Event()

        @with_dead_letters(log.config(ack_wait_seconds=30))
        async def handle(msg: Msg) -> None:
            calls.append(1)
            await is_over.wait()

        with caplog.at_level(logging.INFO):
            async with (
                pulling_bound(log, handle, "blind"),
                pulling_bound(log, handle, "blind"),
            ):
                await log.publish({})
                await until(came_again(caplog))
                assert calls == [1]  # a delivery that was sent before it was settled may call again
                is_over.set()
                await log.settled("plain")


async def test_who_may_neither_ask_nor_hear_is_told_so(
    nats_server_factory: Callable[..., NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    async with denied(nats_server_factory) as log:

        @with_dead_letters(log.config())
        async def handle(msg: Msg) -> None: ...

        async with pulling_bound(log, handle, "deaf"):
            await log.publish({})
            await log.settled("plain")
    assert "Events that the server gives up cannot be heard of" in caplog.text
    assert "set its max_deliver to -1" in caplog.text


async def test_an_outage_while_the_consumer_is_asked_for_loses_no_event(
    nats_server_factory: Callable[..., NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = nats_server_factory()
    async with opened(server.url) as log:
        calls: list[int] = []

        @with_dead_letters(log.config())
        async def handle(msg: Msg) -> None:
            calls.append(json.loads(msg.data))

        config = ConsumerConfig(
            durable_name="plain", ack_policy=AckPolicy.EXPLICIT, max_deliver=1, ack_wait=60
        )
        await log.js.add_consumer(log.names.events, config)
        sub = await log.client.jetstream().pull_subscribe_bind("plain", log.names.events)
        await log.publish(1)
        [msg] = await sub.fetch(1, timeout=20)
        await asyncio.to_thread(server.kill)
        handled = asyncio.create_task(handle(msg))

        async def waits() -> bool:
            return "cannot be asked for" in caplog.text

        await until(waits)
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(handled, 60)
        await log.settled("plain")
    assert calls == [1]
