"""Events that leave their stream while they wait for a retry."""

import asyncio
from typing import Any

from sahool_dlq.events import ConsumerContext, ProcessingResult, Retry
from sahool_dlq.events.results import HandlerResult
from sahool_dlq.events.subscription import Subscription
from support.consumer_log import RETRY, SUCCESS, Log, equals, running, seen, until


async def test_an_event_of_a_stream_that_was_created_again_is_not_answered_for_another(
    log: Log,
) -> None:
    """The new stream counts from 1 again, and an acknowledgement contains only the sequence."""
    config = log.config(max_retries=3, retry_delay_seconds=0.1, max_concurrency=5)
    calls: list[bytes] = []
    go = asyncio.Event()

    async def handler(context: ConsumerContext) -> HandlerResult:
        calls.append(context.data)
        if context.data == b'"old"':
            return Retry(delay_seconds=60)
        await go.wait()
        return RETRY if calls.count(b'"new"') <= 5 else SUCCESS

    stream = (await log.js.stream_info(log.names.events)).config
    async with running(config, handler) as consumer:
        for _ in range(5):
            await log.publish("old")
        await seen(calls, 5)
        await log.js.delete_stream(log.names.events)
        await log.js.add_stream(stream)
        for _ in range(5):
            await log.publish("new")
        await seen(calls, 10)
        [subscription] = consumer._subscriptions
        _make_overdue(subscription)
        for _ in range(2):
            await subscription.dead_letter_removed()
        letters = await log.letters(5)
        go.set()
        await seen(calls, 15)
        await log.settled()
    assert {letter["dlq_reason"] for letter in letters} == {"event_removed"}


async def test_a_purge_does_not_stop_a_consumer(log: Log) -> None:
    """Other events of the same consumer still show that events fail."""
    config = log.config(max_retries=3, dead_letter_limit_events=5)
    calls: list[bytes] = []

    async def handler(context: ConsumerContext) -> HandlerResult:
        calls.append(context.data)
        return Retry(delay_seconds=0.5) if context.data == b'"old"' else SUCCESS

    async with running(config, handler) as consumer:
        for _ in range(10):
            await log.publish("old")
        await seen(calls, 10)
        await log.js.purge_stream(log.names.events)
        [subscription] = consumer._subscriptions
        _make_overdue(subscription)
        for _ in range(2):
            await subscription.dead_letter_removed()
        await log.letters(10)
        await log.publish("new")
        await until(lambda: equals(_last(calls), b'"new"'))
        await log.settled()


async def test_what_another_process_took_is_forgotten_while_it_is_still_stored(log: Log) -> None:
    config = log.config(max_retries=3, retry_delay_seconds=0.5, totals_interval_seconds=0.3)
    calls: list[str] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append("failed")
        raise TimeoutError("slow")

    async def succeeds(context: ConsumerContext) -> ProcessingResult:
        calls.append("succeeded")
        return SUCCESS

    async with running(config, fails) as first:
        await log.publish({"n": 1})
        await seen(calls, 1)
        [subscription] = first._subscriptions
        subscription._log_is_writable.clear()  # it fetches nothing more, and keeps the event
        async with running(config, succeeds):
            await until(lambda: equals(_last(calls), "succeeded"))
            await log.settled()
            _make_overdue(subscription)
            await subscription.dead_letter_removed()
            assert not subscription._retries._events
            await log.js.purge_stream(log.names.attempts)
            await log.js.purge_stream(log.names.events)
            await subscription.dead_letter_removed()
            await subscription.dead_letter_removed()
        subscription._log_is_writable.set()
    await log.stored(0)


def _make_overdue(subscription: Subscription) -> None:
    for retry in subscription._retries._events.values():
        retry.due_at = 0


async def _last(calls: list[Any]) -> Any:
    return calls[-1]
