"""An attempt is a call that began, in whichever process, and nothing else."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable

import pytest

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import ConsumerContext, ProcessingResult
from support.consumer_log import SUCCESS, Log, is_pulling, opened, running, seen, until


async def test_an_event_that_waits_while_calls_become_slow_is_not_given_up(log: Log) -> None:
    """The intake fetches far ahead while calls are fast; events that then wait are not called."""
    calls: Counter[int] = Counter()

    async def handler(context: ConsumerContext) -> ProcessingResult:
        number = json.loads(context.data)["n"]
        calls[number] += 1
        if number >= 400:
            await asyncio.sleep(0.4)
        if number % 5 == 0 and number >= 400:
            raise ValueError("always")
        return SUCCESS

    for number in range(520):
        await log.publish({"n": number})
    config = log.config(max_retries=1, ack_wait_seconds=0.6, max_concurrency=8)
    async with running(config, handler):
        await log.settled()
        letters = await log.letters(24)
    assert {letter["dlq_reason"] for letter in letters} == {"max_retries_exceeded"}
    assert {letter["original_data"]["n"] for letter in letters} == set(range(400, 520, 5))
    assert {calls[letter["original_data"]["n"]] for letter in letters} == {2}
    assert set(calls) == set(range(520))


async def test_deliveries_without_a_call_are_no_attempts(log: Log) -> None:
    """Another client receives the event several times, without an answer."""
    config = log.config(max_retries=1, ack_wait_seconds=0.2)
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        raise ValueError("no")

    async with running(config, fails):
        pass  # makes the durable
    await log.publish({})
    taken = await log.js.pull_subscribe_bind("ndvi", log.names.events)
    for _ in range(12):  # many more than max_retries and the slack for crashes
        await taken.fetch(1, timeout=5)
    async with running(config, fails):
        [letter] = await log.letters(1)
    assert calls == [0, 1]
    assert (letter["dlq_reason"], letter["retry_count"]) == ("max_retries_exceeded", 1)


async def test_two_processes_count_the_calls_of_both(log: Log) -> None:
    config = log.config(max_retries=5, max_concurrency=1)
    calls: list[tuple[int, int]] = []

    def failing(process: int) -> Callable[[ConsumerContext], object]:
        async def fails(context: ConsumerContext) -> ProcessingResult:
            calls.append((process, context.attempt))
            await asyncio.sleep(0.02)
            raise ValueError("no")

        return fails

    async with running(config, failing(1)), running(config, failing(2)):
        for number in range(20):
            await log.publish({"n": number})
        letters = await log.letters(20)
    assert len(calls) == 20 * 6
    assert Counter(attempt for _, attempt in calls) == dict.fromkeys(range(6), 20)
    assert {process for process, _ in calls} == {1, 2}
    assert {len(letter["attempts"]) for letter in letters} == {6}


async def test_a_consumer_that_was_created_again_counts_from_zero(log: Log) -> None:
    config = log.config(max_retries=1)
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        raise ValueError("no")

    await log.publish({})
    async with running(config, fails):
        await log.letters(1)
        await log.settled()
    await log.js.delete_consumer(log.names.events, "ndvi")
    async with running(config, fails):
        await seen(calls, 4)
        await log.settled()
    assert calls == [0, 1, 0, 1]


async def test_what_was_counted_before_the_consumer_was_created_again_counts_no_more(
    log: Log,
) -> None:
    """Also if the first delivery after it led to no call."""
    config = log.config(max_retries=1)
    calls: list[int] = []

    async def handler(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        if len(calls) == 2:
            return SUCCESS
        raise ValueError("no")

    await log.publish({})
    async with running(config, handler):
        await seen(calls, 2)
        await log.settled()
    durable = (await log.js.consumer_info(log.names.events, "ndvi")).config
    await log.js.delete_consumer(log.names.events, "ndvi")
    durable.ack_wait = 0.2
    await log.js.add_consumer(log.names.events, durable)
    taken = await log.js.pull_subscribe_bind("ndvi", log.names.events)
    for _ in range(2):
        await taken.fetch(1, timeout=5)
    async with running(config, handler):
        await log.letters(1)
    assert calls == [0, 1, 0, 1]


async def test_without_a_place_for_attempts_each_delivery_counts(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await log.js.delete_stream(log.names.attempts)
    # Another stream has some of their subjects, so that ours cannot be made.
    await log.js.add_stream(name=f"OTHER_{log.prefix}", subjects=[f"{log.prefix}.attempts.x"])
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        raise ValueError("no")

    async with running(log.config(max_retries=1), fails):
        await log.publish({})
        [letter] = await log.letters(1)
    assert calls == [0, 1]
    assert letter["retry_count"] == 1
    assert "Attempts cannot be stored" in caplog.text


async def test_a_restart_of_the_server_delivers_no_event_again_that_is_being_handled(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    """After it, ack_wait counts from when an event was stored, which is long ago in a backlog."""
    server = nats_server_factory()
    async with opened(server.url) as log:
        for number in range(8):
            await log.publish({"n": number})
        await asyncio.sleep(4)  # longer than ack_wait
        config = log.config(ack_wait_seconds=3, max_concurrency=4)
        calls: Counter[bytes] = Counter()
        go = asyncio.Event()

        async def handler(context: ConsumerContext) -> ProcessingResult:
            calls[context.data] += 1
            await go.wait()
            return SUCCESS

        async with running(config, handler) as one, running(config, handler):
            await until(lambda: _is(calls.total, 8))
            assert await is_pulling(one)
            await asyncio.sleep(0.5)  # the server knows that they are in progress
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            await asyncio.sleep(3)  # both pull again
            go.set()
            await log.settled()
        assert set(calls.values()) == {1}


# -- events that are removed while they wait for a retry


@pytest.mark.parametrize("how", ["displaced", "purged", "deleted"])
async def test_an_event_that_is_removed_while_it_waits_becomes_a_dead_letter(
    log: Log, how: str
) -> None:
    stream = (await log.js.stream_info(log.names.events)).config
    stream.max_msgs_per_subject = 1
    await log.js.update_stream(stream)
    config = log.config(max_retries=3, retry_delay_seconds=4, totals_interval_seconds=0.5)
    calls: list[bytes] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.data)
        if context.data == b'{"n": 1}':
            raise TimeoutError("slow")
        return SUCCESS

    async with running(config, fails), running(config, fails):
        sequence = await log.publish({"n": 1})
        await seen(calls, 1)
        if how == "displaced":
            await log.publish({"n": 2})
        elif how == "purged":
            await log.js.purge_stream(log.names.events)
        else:
            await log.js.delete_msg(log.names.events, sequence)
        [letter] = await log.letters(1)
    assert (letter["dlq_reason"], letter["error_type"]) == ("event_removed", "EventRemoved")
    assert "TimeoutError: slow" in letter["error_message"]
    assert (letter["original_data"], letter["retry_count"]) == ({"n": 1}, 0)
    assert letter["original_sequence"] == sequence


async def test_an_event_that_another_process_handled_before_it_was_removed_is_no_failure(
    log: Log,
) -> None:
    config = log.config(
        max_retries=3, retry_delay_seconds=0.5, totals_interval_seconds=0.3, max_concurrency=1
    )
    calls: Counter[str] = Counter()

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls["failed"] += 1
        raise TimeoutError("slow")

    async def succeeds(context: ConsumerContext) -> ProcessingResult:
        calls["succeeded"] += 1
        return SUCCESS

    async with running(config, fails) as first:
        sequence = await log.publish({"n": 1})
        await until(lambda: _is(lambda: calls["failed"], 1))
        [subscription] = first._subscriptions
        subscription._log_is_writable.clear()  # it fetches nothing more, and keeps the event
        async with running(config, succeeds):
            await until(lambda: _is(lambda: calls["succeeded"], 1))
            await log.settled()
            await log.js.delete_msg(log.names.events, sequence)
            for retry in list(subscription._retries._events.values()):
                retry.due_at = 0
            await subscription.dead_letter_removed()
            await subscription.dead_letter_removed()
        subscription._log_is_writable.set()
    await log.stored(0)


async def _is(value: Callable[[], int], wanted: int) -> bool:
    return value() >= wanted
