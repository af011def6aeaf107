"""Consumers whose stream of attempts is lost, or keeps nothing."""

import asyncio
import dataclasses
from collections import Counter

import pytest
from nats.js.api import RetentionPolicy, StreamConfig

from sahool_dlq.events import ConsumerContext, NATSConsumer, ProcessingResult
from sahool_dlq.events import intake as intake_module
from sahool_dlq.events.attempts import AttemptLog
from sahool_dlq.events.subscription import Subscription
from sahool_dlq.jetstream.pull import delivery_of
from sahool_dlq.jetstream.streams import ensure_attempts_stream
from support.consumer_log import Log, running, seen, until


async def _take(log: Log, times: int) -> None:
    """Another client receives an event this many times, without an answer."""
    taken = await log.js.pull_subscribe_bind("ndvi", log.names.events)
    for _ in range(times):
        await taken.fetch(1, timeout=5)


@pytest.fixture
def _short_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "_PULL_SECONDS", 0.3)


async def _held(consumer: NATSConsumer) -> Subscription:
    """Wait until it fetches nothing for now, and its pull request has ended."""
    [subscription] = consumer._subscriptions
    gate = subscription._log_is_writable
    gate.clear()

    async def waits() -> bool:
        return bool(gate._waiters)

    await until(waits)
    return subscription


@pytest.mark.usefixtures("_short_pulls")
async def test_events_are_called_when_the_stream_is_deleted_under_a_consumer(log: Log) -> None:
    config = log.config(max_retries=3, ack_wait_seconds=0.3)
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        raise ValueError("no")

    async with running(config, fails) as consumer:
        subscription = await _held(consumer)
        await log.js.delete_stream(log.names.attempts)
        await log.publish({})
        await _take(log, 2)
        subscription._log_is_writable.set()
        await seen(calls, 1)


async def test_a_call_that_could_not_be_noted_down_is_not_counted(log: Log) -> None:
    """Its event may have killed a process, so it is called only after the attempt is stored."""
    config = log.config(max_retries=1, ack_wait_seconds=0.2)
    attempts = (await log.js.stream_info(log.names.attempts)).config
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        if len(calls) == 1:
            await log.js.update_stream(dataclasses.replace(attempts, max_msg_size=1))
        raise ValueError("no")

    async def given_back_often() -> bool:
        info = await log.js.consumer_info(log.names.events, "ndvi")
        return info.delivered is not None and info.delivered.consumer_seq > 14

    async with running(config, fails):
        pass  # makes the durable
    await log.publish({})
    taken = await log.js.pull_subscribe_bind("ndvi", log.names.events)
    await taken.fetch(1)
    [msg] = await taken.fetch(1, timeout=5)
    dying = AttemptLog(config.subjects, log.names.events, "ndvi")
    await dying.open(log.client)
    delivery = delivery_of(msg)
    await dying.begin(log.client, delivery, await dying.before(log.client, delivery, None))
    async with running(config, fails):
        await until(given_back_often)
        await log.js.update_stream(attempts)
        [letter] = await log.letters(1)
    assert calls == [0, 1]
    assert (letter["dlq_reason"], letter["retry_count"]) == ("max_retries_exceeded", 1)


@pytest.mark.usefixtures("_short_pulls")
async def test_a_restart_without_the_stream_makes_no_calls_of_deliveries(log: Log) -> None:
    """For a moment the stream does not answer, as when it has no leader."""
    config = log.config(max_retries=1, ack_wait_seconds=0.2)
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        raise ValueError("no")

    async with running(config, fails) as consumer:
        subscription = await _held(consumer)
        await log.js.delete_stream(log.names.attempts)
        await subscription.prepare()
        await ensure_attempts_stream(log.js, log.names)
        await log.publish({})
        await _take(log, 12)
        subscription._log_is_writable.set()
        [letter] = await log.letters(1)
    assert calls == [0, 1]
    assert (letter["dlq_reason"], letter["retry_count"]) == ("max_retries_exceeded", 1)


async def test_a_stream_that_keeps_nothing_is_not_used(log: Log) -> None:
    """A stream with interest retention deletes attempts at once, because it has no consumer."""
    await log.js.delete_stream(log.names.attempts)
    await log.js.add_stream(
        StreamConfig(
            name=log.names.attempts,
            subjects=[f"{log.prefix}.attempts.>"],
            retention=RetentionPolicy.INTEREST,
        )
    )
    config = log.config(max_retries=1, retry_delay_seconds=0.5)
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        raise ValueError("no")

    await log.publish({})
    for number in (1, 2):  # each call is made by another process
        async with running(config, fails):
            await seen(calls, number)
    await log.letters(1)
    assert calls == [0, 1]


async def test_a_suspect_that_never_ends_leaves_the_places_to_others(log: Log) -> None:
    """Events that may kill their process are called one at a time, and the others do not wait."""
    config = log.config(ack_wait_seconds=0.5, max_concurrency=2)
    go, handled = asyncio.Event(), list[bytes]()

    async def handler(context: ConsumerContext) -> ProcessingResult:
        if context.data != b"harmless":
            await go.wait()
        handled.append(context.data)
        return ProcessingResult.SUCCESS

    async with running(config, handler):
        pass  # makes the durable
    await log.publish(b"first")
    await log.publish(b"second")
    taken = await log.js.pull_subscribe_bind("ndvi", log.names.events)
    dying = AttemptLog(config.subjects, log.names.events, "ndvi")
    await dying.open(log.client)
    begun = Counter[int]()
    while min(begun[1], begun[2]) < 2:  # each delivery leads to a call, and its process dies
        [msg] = await taken.fetch(1, timeout=5)
        delivery = delivery_of(msg)
        if delivery.delivery_count > 1:
            before = await dying.before(log.client, delivery, None)
            await dying.begin(log.client, delivery, before)
            begun[delivery.sequence] += 1
    async with running(config, handler):
        await log.publish(b"harmless")
        await seen(handled, 1)
        assert handled == [b"harmless"]
        go.set()
        await log.settled()
    assert set(handled) == {b"first", b"second", b"harmless"}
