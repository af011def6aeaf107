"""A service that replaces its own pull loop by ours keeps its position in the stream."""

import json

import nats
import pytest

from sahool_dlq.events import ConsumerContext, NATSConsumer, ProcessingResult
from support.consumer_log import Log, running


@pytest.fixture
async def older(nats_url: str):
    """What an older service leaves: one stream, and a durable consumer that handled 1 of 3."""
    async with await nats.connect(nats_url) as client:
        log = Log(nats_url, client)
        await log.js.add_stream(name=log.names.events, subjects=[f"{log.prefix}.>"])
        for number in (1, 2, 3):
            await log.publish({"number": number})
        subscription = await log.js.pull_subscribe(
            f"{log.prefix}.analysis.*", durable="default-consumer", stream=log.names.events
        )
        done, failed = await subscription.fetch(2)
        await done.ack_sync()
        await failed.nak()
        await subscription.unsubscribe()
        yield log


async def test_its_durable_consumer_continues_where_it_stood(older: Log) -> None:
    calls = []

    async def handle(context: ConsumerContext) -> ProcessingResult:
        calls.append(json.loads(context.data)["number"])
        if calls[-1] == 3:
            raise ValueError("three")
        return ProcessingResult.SUCCESS

    config = older.config(consumer_name="default-consumer", max_retries=0)
    async with running(config, handle):
        await older.settled("default-consumer")
    assert sorted(calls) == [2, 3]
    dead = await older.js.get_last_msg(older.names.events, f"{older.prefix}.dlq.ndvi")
    assert json.loads(dead.data or b"")["error_message"] == "three"


async def test_another_name_starts_at_the_beginning(older: Log) -> None:
    calls = []

    async def handle(context: ConsumerContext) -> ProcessingResult:
        calls.append(json.loads(context.data)["number"])
        return ProcessingResult.SUCCESS

    async with running(older.config(consumer_name="new"), handle):
        await older.settled("new")
    assert sorted(calls) == [1, 2, 3]


async def test_a_filter_on_everything_and_a_name_for_two_are_refused(older: Log) -> None:
    async def handle(context: ConsumerContext) -> ProcessingResult:
        return ProcessingResult.SUCCESS

    consumer = NATSConsumer(older.config())
    assert await consumer.connect()
    with pytest.raises(ValueError, match="its own messages"):
        await consumer.subscribe(handle, f"{older.prefix}.>")
    await consumer.subscribe(handle, f"{older.prefix}.analysis.ndvi")
    with pytest.raises(ValueError, match="its own consumer_name"):
        await consumer.subscribe(handle, f"{older.prefix}.analysis.other")
    await consumer.close()
