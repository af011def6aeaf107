"""Streams and durable consumers that exist already: adopted, left alone or refused."""

import json
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from sahool_dlq.errors import StreamError
from sahool_dlq.events import NATSConsumer, NATSConsumerConfig, start_consumer
from sahool_dlq.jetstream.streams import ensure_streams
from support.consumer_log import (
    SUCCESS,
    Calls,
    Log,
    equals,
    is_pulling,
    new_prefix,
    opened,
    running,
    until,
)


@pytest.mark.parametrize("subject", ["{}.>", "{}.*.*", "{}.dlq.*", "*.triage.x"])
async def test_a_filter_that_matches_its_own_dead_letters_is_refused(
    log: Log, subject: str
) -> None:
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    with pytest.raises(ValueError, match="would receive its own messages: use narrower filters"):
        await consumer.subscribe(Calls(SUCCESS), subject.format(log.prefix))
    await consumer.close()


async def test_a_subject_without_a_stream_is_refused(log: Log) -> None:
    consumer = NATSConsumer(log.config())
    with pytest.raises(RuntimeError, match="connect"):
        await consumer.subscribe(Calls(SUCCESS))
    assert await consumer.connect()
    nowhere = f"{log.prefix}.nowhere.x"
    with pytest.raises(StreamError, match=f"does not receive {nowhere}"):
        await consumer.subscribe(Calls(SUCCESS), nowhere)
    with pytest.raises(RuntimeError, match="Nothing to consume"):
        await consumer.start()
    await consumer.close()


async def test_a_stream_of_other_subjects_is_consumed_and_left_as_it_is(log: Log) -> None:
    orders, subject = f"ORDERS_{log.prefix}", f"orders-{log.prefix}.>"
    await log.js.add_stream(name=orders, subjects=[subject])
    await log.js.delete_stream(log.names.events)  # no stream captures the events' subjects
    async with running(log.config(stream_name=orders), Calls(ValueError("no")), subject):
        await log.js.publish(subject.replace(">", "paid"), b"{}")
        [letter] = await log.letters(1)
    assert letter["original_stream"] == orders
    assert (await log.js.stream_info(orders)).config.subjects == [subject]


async def test_a_stream_that_holds_only_some_events_keeps_no_dead_letter_back(
    nats_url: str,
) -> None:
    async with opened(nats_url) as log:
        log.prefix = new_prefix()
        other = f"FIELD_{log.prefix}"
        await log.js.add_stream(name=other, subjects=[f"{log.prefix}.analysis.>"])
        config = NATSConsumerConfig(**log.config().model_dump(exclude={"stream_name"}))
        async with running(config, Calls(ValueError("no"))):
            await log.publish({})
            [letter] = await log.letters(1)
        assert letter["original_stream"] == other


async def test_two_subscriptions_never_share_a_durable(log: Log) -> None:
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    await consumer.subscribe(Calls(SUCCESS), f"{log.prefix}.analysis.*")
    with pytest.raises(ValueError, match="already uses the durable consumer ndvi"):
        await consumer.subscribe(Calls(SUCCESS), f"{log.prefix}.actions.*")
    await consumer.subscribe(Calls(SUCCESS), f"{log.prefix}.actions.*", consumer_name="actions")
    await consumer.close()


async def test_a_given_durable_keeps_its_name_and_long_ones_stay_apart(log: Log) -> None:
    name = "irrigation-recommendations-of-the-service-for-large-farms-in-the-north"
    consumer = NATSConsumer(log.config(name=name, consumer_name=None))
    assert await consumer.connect()
    await consumer.subscribe(Calls(SUCCESS), f"{log.prefix}.analysis.*")
    await consumer.subscribe(Calls(SUCCESS), f"{log.prefix}.actions.>")
    await consumer.subscribe(
        Calls(SUCCESS), f"{log.prefix}.actions.*", consumer_name="ndvi:v2@north"
    )
    names = {info.name for info in await log.js.consumers_info(log.names.events)}
    p = log.prefix
    assert names == {f"{name}-{p}_analysis_any", f"{name}-{p}_actions_all", "ndvi:v2@north"}
    await consumer.close()


async def test_a_subscription_that_would_not_run_is_refused(log: Log) -> None:
    more = f"{log.prefix}.actions.*"
    consumer = await start_consumer(Calls(SUCCESS), log.config())
    with pytest.raises(RuntimeError, match="subscribe before start"):
        await consumer.subscribe(Calls(SUCCESS), more, consumer_name="more")
    await until(lambda: equals(is_pulling(consumer), True))
    with pytest.raises(RuntimeError, match="was started already"):
        await consumer.start()
    await consumer.close()
    assert await consumer.connect()
    with pytest.raises(RuntimeError, match="started or closed already"):
        await consumer.subscribe(Calls(SUCCESS), more, consumer_name="more")
    await consumer.close()


async def test_connecting_again_keeps_the_connection(log: Log) -> None:
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    connection = consumer._connection
    assert await consumer.connect()
    assert consumer._connection is connection
    await consumer.close()


async def test_an_existing_durable_with_other_settings_is_adopted(log: Log) -> None:
    await log.publish({"n": 0})
    await log.js.add_consumer(
        log.names.events,
        ConsumerConfig(
            durable_name="ndvi",
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.NEW,
            filter_subject=f"{log.prefix}.analysis.*",
            ack_wait=0.5,
            max_deliver=2,  # would strand an event that is retried more often
            backoff=[0.1, 0.2],
            max_ack_pending=1,
        ),
    )
    calls = Calls(ValueError("no"))
    async with running(log.config(max_retries=3), calls):
        await log.publish({"n": 1})
        [letter] = await log.letters(1)
    assert [context.attempt for context in calls] == [0, 1, 2, 3]
    assert letter["original_data"] == {"n": 1}
    config = (await log.js.consumer_info(log.names.events, "ndvi")).config
    assert config.deliver_policy == DeliverPolicy.NEW
    assert (config.ack_wait, config.max_deliver, config.backoff) == (30, -1, None)
    assert config.max_ack_pending == 10_000


@pytest.mark.parametrize(
    ("existing", "what"),
    [
        ({"deliver_subject": "push.to"}, "a push consumer"),
        ({"ack_policy": AckPolicy.ALL}, "explicit acknowledgements"),
    ],
)
async def test_a_durable_that_can_not_be_pulled_from_is_refused(
    log: Log, existing: dict[str, Any], what: str
) -> None:
    await log.js.add_consumer(log.names.events, ConsumerConfig(durable_name="ndvi", **existing))
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    with pytest.raises(StreamError, match=what):
        await consumer.subscribe(Calls(SUCCESS))
    await consumer.close()


async def test_the_older_wide_stream_stores_the_dead_letters(nats_url: str) -> None:
    async with opened(nats_url) as log:
        log.prefix = new_prefix()
        wide = log.names.events
        await log.js.add_stream(name=wide, subjects=[f"{log.prefix}.>"])
        roles = await ensure_streams(log.js, log.names)
        assert set(roles.values()) == {wide}
        async with running(log.config(), Calls(ValueError("old"))):
            await log.publish({"event_id": "e1"})
            await log.settled()
        stored = await log.js.get_last_msg(wide, f"{log.prefix}.dlq.>")
        assert json.loads(stored.data or b"")["event_id"] == "e1"
        assert (await log.js.stream_info(wide)).config.subjects == [f"{log.prefix}.>"]
