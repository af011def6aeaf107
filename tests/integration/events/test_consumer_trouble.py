"""What a consumer logs about its problems, and what a handler can say about an event."""

import asyncio
from datetime import timedelta

import pytest

from sahool_dlq.errors import DeadLetterLimitError
from sahool_dlq.events import (
    ConsumerContext,
    DeadLetter,
    NATSConsumer,
    ProcessingResult,
    Retry,
    RetryPolicy,
    start_consumer,
)
from sahool_dlq.jetstream.streams import ensure_streams
from support.consumer_log import DEAD_LETTER, RETRY, SUCCESS, Log, running, seen, until


class Page(list[tuple[str, str]]):
    """A notifier that records its calls and raises: this must have no effect."""

    def __call__(self, kind: str, sentence: str) -> None:
        self.append((kind, sentence))
        raise RuntimeError("the pager is broken")


async def give_up(context: ConsumerContext) -> ProcessingResult:
    return DEAD_LETTER


async def test_it_says_once_that_the_log_can_not_be_written_and_once_that_it_can(log: Log) -> None:
    page = Page()
    consumer = await start_consumer(give_up, log.config(), on_trouble=page)
    await log.js.delete_stream(log.names.dead_letters)
    for number in range(4):
        await log.publish(number)
    await seen(page, 1)
    await asyncio.sleep(0.5)  # publishing is tried again meanwhile
    assert [kind for kind, _ in page] == ["dlq_unwritable"]
    assert "no more events are fetched until that works" in page[0][1]
    await ensure_streams(log.js, log.names)
    await log.letters(4)
    await log.settled()
    await consumer.close()
    assert [kind for kind, _ in page] == ["dlq_unwritable", "dlq_writable"]


async def test_whom_it_tells_may_be_async(log: Log) -> None:
    told: list[str] = []

    async def page(kind: str, sentence: str) -> None:
        await asyncio.sleep(0)
        told.append(kind)
        raise RuntimeError("the pager is broken")

    consumer = await start_consumer(give_up, log.config(), on_trouble=page)
    await log.js.delete_stream(log.names.dead_letters)
    await log.publish({})
    await seen(told, 1)
    await ensure_streams(log.js, log.names)
    await seen(told, 2)
    await consumer.close()
    assert told == ["dlq_unwritable", "dlq_writable"]


async def test_an_invalid_delay_is_reported_with_the_line_of_the_handler(log: Log) -> None:
    async def wait(context: ConsumerContext) -> Retry:
        return Retry(delay_seconds=timedelta(seconds=5))

    async with running(log.config(), wait):
        await log.publish({})
        [letter] = await log.letters(1)
    assert letter["error_message"].startswith("delay_seconds is a number of seconds, not datetime")
    assert "in wait" in letter["stack_trace"]


async def test_it_says_when_so_many_retries_wait_that_delivery_soon_stops(log: Log) -> None:
    page = Page()
    config = log.config(
        max_retries=1, retry_delay_seconds=60, max_ack_pending=5, totals_interval_seconds=0.1
    )

    async def fails(context: ConsumerContext) -> ProcessingResult:
        return RETRY

    consumer = await start_consumer(fails, config, on_trouble=page)
    for number in range(4):
        await log.publish(number)
    await seen(page, 1)
    await consumer.close()
    assert page[0][0] == "ack_pending"
    assert page[0][1].startswith(
        "ndvi: 4 events wait for a retry or an acknowledgement; at 5 the server"
    )


async def test_a_broken_deploy_stops_before_it_empties_the_stream(log: Log) -> None:
    page = Page()
    config = log.config(dead_letter_limit_events=10, dead_letter_limit_share=0.9)
    consumer = NATSConsumer(config, on_trouble=page)
    assert await consumer.connect()
    await consumer.subscribe(give_up)
    for number in range(40):
        await log.publish(number)
    with pytest.raises(DeadLetterLimitError, match="10 of its latest 10 events were dead-letter"):
        await consumer.start()
    await consumer.close()
    assert [kind for kind, _ in page] == ["dead_letter_limit"]
    dead = (await log.js.stream_info(log.names.dead_letters)).state.messages
    assert 10 <= dead < 10 + config.max_concurrency

    handled = []

    async def mended(context: ConsumerContext) -> ProcessingResult:
        handled.append(context.data)
        return SUCCESS

    async with running(config, mended):
        await log.settled()
    assert len(set(handled)) == 40 - dead


async def test_failures_among_successes_stop_nothing(log: Log) -> None:
    async def every_other(context: ConsumerContext) -> ProcessingResult:
        return DEAD_LETTER if context.sequence % 2 else SUCCESS

    config = log.config(dead_letter_limit_events=10, dead_letter_limit_share=0.9)
    async with running(config, every_other):
        for number in range(40):
            await log.publish(number)
        await log.letters(20)
        await log.settled()


async def test_what_a_handler_caught_and_hands_over_is_in_the_dead_letter(log: Log) -> None:
    calls: list[float] = []

    async def catches(context: ConsumerContext) -> Retry | DeadLetter:
        calls.append(asyncio.get_running_loop().time())
        try:
            {}["price"]
        except KeyError as error:
            if context.attempt:
                return DeadLetter("no price", error, dlq_reason="no_price")
            return Retry("no price yet", error, delay_seconds=0.5)
        raise AssertionError

    config = log.config(max_retries=5, retry_delay_seconds=60)
    async with running(config, catches):
        await log.publish({})
        [letter] = await log.letters(1)
    assert calls[1] - calls[0] >= 0.5  # its own delay, not the 60 s of the settings
    assert (letter["error_type"], letter["error_message"]) == ("KeyError", "'price'")
    assert (letter["dlq_reason"], letter["retry_count"]) == ("no_price", 1)
    assert "in catches" in letter["stack_trace"]
    assert [attempt["reason"] for attempt in letter["attempts"]] == ["no price yet", "no price"]


async def test_policies_decide_by_error_and_event_type(log: Log) -> None:
    errors = {b'"away"': ConnectionResetError("away"), b'"bug"': ValueError("bug")}

    async def fails(context: ConsumerContext) -> ProcessingResult:
        raise errors[context.data]

    policies = (
        RetryPolicy(error_type="ConnectionError", max_retries=2),
        RetryPolicy(event_type="sown", fatal_error_types=("ValueError",)),
    )
    async with running(log.config(policies=policies), fails):
        for body, subject in (("away", "ndvi"), ("bug", "ndvi"), ("bug", "sown")):
            await log.publish(body, f"analysis.{subject}")
        letters = await log.letters(3)
    found = {
        (each["original_data"], each["event_type"]): (each["retry_count"], each["dlq_reason"])
        for each in letters
    }
    assert found == {
        ("away", "ndvi"): (2, "max_retries_exceeded"),
        ("bug", "ndvi"): (0, "max_retries_exceeded"),
        ("bug", "sown"): (0, "value_error"),
    }


async def test_no_more_is_fetched_while_a_dead_letter_is_held(log: Log) -> None:
    async with running(log.config(max_concurrency=1), give_up) as consumer:
        await log.js.delete_stream(log.names.dead_letters)
        await log.publish(0)
        await until(lambda: _is_held(consumer))
        for number in range(1, 20):
            await log.publish(number)
        assert (await log.pending())[0] == 19
        await ensure_streams(log.js, log.names)
        await log.letters(20)


async def _is_held(consumer: NATSConsumer) -> bool:
    return not consumer._subscriptions[0].is_log_writable
