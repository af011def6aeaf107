"""A consumer that closes while handlers run: nothing is lost or done twice."""

import asyncio
import json
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from sahool_dlq.events import ConsumerContext, NATSConsumer, ProcessingResult, start_consumer
from support.consumer_log import (
    RETRY,
    SUCCESS,
    Calls,
    Log,
    equals,
    is_pulling,
    running,
    seen,
    until,
)


async def test_close_lets_a_running_handler_finish(log: Log) -> None:
    finished: list[int] = []

    async def slow(context: ConsumerContext) -> ProcessingResult:
        await asyncio.sleep(0.5)
        finished.append(context.sequence)
        return SUCCESS

    async with running(log.config(), slow):
        await log.publish({})
        await until(lambda: equals(log.pending(), (0, 1)))
    assert finished == [1]
    await log.settled()


@pytest.mark.parametrize("reaction", ["propagates", "raises", "returns"])
async def test_what_is_not_finished_is_given_back_and_never_dead_lettered(
    log: Log, reaction: str
) -> None:
    started = asyncio.Event()

    async def hangs(context: ConsumerContext) -> ProcessingResult:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if reaction == "raises":
                raise ValueError("a clean-up that fails") from None
            if reaction == "propagates":
                raise
        return RETRY

    async with running(log.config(shutdown_seconds=0.1), hangs):
        await log.publish({})
        await started.wait()
    await log.letters(0)
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):  # at once, not after ack_wait
        await seen(calls, 1, seconds=20)
        await log.settled()
    assert calls[0].attempt == 0  # an interrupted call uses no retry


async def test_an_event_that_comes_while_closing_waits_for_no_ack_wait(log: Log) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def slow(context: ConsumerContext) -> ProcessingResult:
        started.set()
        await finish.wait()
        return SUCCESS

    async with running(log.config(), slow) as consumer:
        await log.publish({})
        await started.wait()
        closing = asyncio.create_task(consumer.close())
        await until(lambda: equals(is_pulling(consumer), False))
        await log.publish({"n": 2})
        await asyncio.sleep(0.1)
        assert await log.pending() == (1, 1)  # the server no longer delivers to it
        finish.set()
        await closing
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        await seen(calls, 1, seconds=20)


async def test_close_works_at_any_time(log: Log) -> None:
    consumer = NATSConsumer(log.config())
    await consumer.close()  # never connected
    consumer = await start_consumer(Calls(SUCCESS), log.config())
    await consumer.close()  # before its task ran at all
    await consumer.close()
    assert not consumer.is_connected


async def test_a_cancelled_start_leaves_nothing_running(log: Log) -> None:
    calls = Calls(SUCCESS)
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    await consumer.subscribe(calls)
    task = asyncio.create_task(consumer.start())
    await log.publish({})
    await seen(calls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await log.publish({})
    await asyncio.sleep(0.3)
    assert len(calls) == 1
    await consumer.close()


async def test_a_handler_that_hangs_is_timed_out(log: Log) -> None:
    async def hangs(context: ConsumerContext) -> ProcessingResult:
        await asyncio.sleep(60)
        return SUCCESS

    async with running(log.config(handler_timeout_seconds=0.2), hangs):
        await log.publish({})
        [letter] = await log.letters(1)
    assert letter["error_type"] == "TimeoutError"
    assert letter["error_message"] == "The handler took longer than 0.2 s."
    assert "in hangs" in letter["stack_trace"]
    assert "subscription.py" not in letter["stack_trace"]


async def test_a_long_handler_keeps_its_event(log: Log) -> None:
    calls: list[int] = []

    async def slow(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        await asyncio.sleep(2)
        return SUCCESS

    async with running(log.config(ack_wait_seconds=0.6), slow):
        await log.publish({})
        await seen(calls, 1)
        await asyncio.sleep(1.8)
        await log.settled()
    assert calls == [0]


async def test_totals_arrive(log: Log) -> None:
    calls = Calls(SUCCESS, ValueError("one"), SUCCESS)
    subject = f"{log.prefix}.totals.ndvi-service.ndvi"

    async def last() -> dict[str, Any]:
        try:
            msg = await log.js.get_last_msg(log.names.totals, subject)
        except NotFoundError:
            return {}
        return json.loads(msg.data or b"") | {"sequence": msg.seq}

    async def all_are_counted() -> bool:
        return (await last()).get("handled") == 3

    async with running(log.config(totals_interval_seconds=0.2, max_concurrency=1), calls):
        for number in range(3):
            await log.publish(number)
        await log.settled()
        await until(all_are_counted)
        total = await last()
    counted = {key: total[key] for key in ("handled", "succeeded", "retried", "dead_lettered")}
    assert counted == {"handled": 3, "succeeded": 2, "retried": 0, "dead_lettered": 1}
    assert (total["service"], total["consumer"]) == ("ndvi-service", "ndvi")
    assert (await last())["sequence"] > total["sequence"]  # close publishes the last totals
