"""Subscribers of a real FastStream broker, retried and dead-lettered as by `NATSConsumer`."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.exceptions import NackMessage, RejectMessage, SkipMessage
from faststream.nats import ConsumerConfig, JStream, NatsBroker, PullSub
from faststream.specification import AsyncAPI
from nats.aio.client import Client

from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import StreamError
from sahool_dlq.events import faststream_dead_letters
from sahool_dlq.events.beside import settler
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.consumer_log import Log, opened, seen, until
from support.platform_log import failures
from support.redriving import TIMEOUTS, quick, redrive_timeouts

PULL = {"durable": "fast", "pull_sub": PullSub(batch_size=4, timeout=1)}
PUSH = {"durable": "fast"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "PAUSE_SECONDS", 0.2)


def broker_of(log: Log, **changes: Any) -> NatsBroker:
    broker = NatsBroker(log.url, logger=None, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    faststream_dead_letters(broker, log.config(**{"name": "fast-service", **changes}))
    return broker


def subscriber(broker: NatsBroker, log: Log, **options: Any) -> Any:
    stream = JStream(log.names.events, declare=False)
    subject = options.pop("subject", "analysis.ndvi")
    return broker.subscriber(f"{log.prefix}.{subject}", stream=stream, **options)


@contextlib.asynccontextmanager
async def started(broker: NatsBroker) -> AsyncIterator[None]:
    async with broker:
        await broker.start()
        yield


@pytest.mark.filterwarnings("ignore:The JetStream Push consumer:RuntimeWarning")
@pytest.mark.parametrize(
    "options",
    [
        PULL,
        PUSH,
        {"queue": "fast"},
        PULL | {"max_workers": 3},
        PULL | {"ack_policy": AckPolicy.NACK_ON_ERROR},
    ],
    ids=["pull", "push", "queue", "workers", "nack"],
)
async def test_failures_are_retried_then_kept_and_successes_acknowledged(
    log: Log, options: dict[str, Any]
) -> None:
    broker = broker_of(log, max_retries=1)
    calls: list[int] = []

    @subscriber(broker, log, **options)
    async def handle(event: dict[str, Any]) -> None:
        calls.append(event["n"])
        if event["n"]:
            raise ConnectionError("no tile server")

    async with started(broker):
        await log.publish({"n": 0, "event_id": "e0"})
        await log.publish({"n": 1, "event_id": "e1"})
        [letter] = await log.letters(1)
        await log.settled("fast")
    assert sorted(calls) == [0, 1, 1]
    assert letter["event_id"] == "e1"
    assert letter["dlq_reason"] == "max_retries_exceeded"
    assert (letter["error_type"], letter["error_message"]) == ("ConnectionError", "no tile server")
    assert 'raise ConnectionError("no tile server")' in letter["stack_trace"]
    assert (letter["retry_count"], len(letter["attempts"])) == (1, 2)
    assert (letter["consumer_service"], letter["handler"]) == ("fast-service", "handle")


async def test_what_fails_around_the_handler_is_kept_too(log: Log) -> None:
    """FastStream itself would reject what it cannot parse, match or publish, and lose it."""
    broker = broker_of(log)

    @subscriber(broker, log, subject="analysis.typed", **PULL)
    @broker.publisher(f"{log.prefix}.nowhere", stream="NO_SUCH_STREAM")
    async def typed(event: dict[str, int]) -> str:
        return "an answer that has nowhere to go"

    only_known = subscriber(broker, log, subject="analysis.known", **PULL | {"durable": "known"})

    @only_known(filter=lambda msg: msg.headers.get("kind") == "known")
    async def known(event: Any) -> None:
        raise AssertionError("never called")

    broker._stream_builder.objects.pop("NO_SUCH_STREAM")
    async with started(broker):
        await log.publish(["no dict"], "analysis.typed")
        await log.publish({"n": 1}, "analysis.typed")
        await log.publish({"n": 2}, "analysis.known")
        letters = {json.dumps(each["original_data"]): each for each in await log.letters(3)}
    assert letters['["no dict"]']["error_type"] == "ValidationError"
    assert letters['{"n": 1}']["handler"] == "typed"
    assert letters['{"n": 2}']["error_type"] == "SubscriberNotFound"


async def test_faststreams_own_words_count(log: Log) -> None:
    broker = broker_of(log, max_retries=5, retry_delay_seconds=60)
    calls: list[str] = []

    @subscriber(broker, log, **PULL)
    async def handle(word: str) -> None:
        calls.append(word)
        if word == "reject":
            raise RejectMessage
        if calls.count("nack") == 1:
            raise NackMessage(delay=0.05)

    async with started(broker):
        await log.publish("nack")
        await log.settled("fast")
        await log.publish("reject")
        [letter] = await log.letters(1)
        await log.settled("fast")
    assert calls == ["nack", "nack", "reject"]
    assert (letter["dlq_reason"], letter["original_data"]) == ("rejected", "reject")


async def test_what_is_skipped_at_its_last_delivery_is_kept(log: Log) -> None:
    broker = broker_of(log)
    config = ConsumerConfig(ack_wait=1, max_deliver=2)
    calls: list[int] = []

    @subscriber(broker, log, **PULL, config=config)
    async def handle(event: dict[str, int]) -> None:
        calls.append(event["n"])
        raise SkipMessage

    async with started(broker):
        await log.publish({"n": 7})
        [letter] = await log.letters(1)
        await log.settled("fast")
    assert calls == [7, 7]
    assert (letter["dlq_reason"], letter["original_data"]) == ("max_deliveries", {"n": 7})
    assert "max_deliver is 2" in letter["error_message"]


async def test_a_subscriber_that_answers_its_events_itself_is_refused(log: Log) -> None:
    broker = broker_of(log)

    @subscriber(broker, log, **PULL | {"ack_policy": AckPolicy.MANUAL})
    async def by_hand(event: Any) -> None: ...

    with pytest.raises(StreamError, match="Subscriber by_hand answers its events itself"):
        async with started(broker):
            pass


async def test_a_batch_that_fails_is_kept_event_by_event(log: Log) -> None:
    broker = broker_of(log)

    @subscriber(broker, log, durable="fast", pull_sub=PullSub(5, timeout=1, batch=True))
    async def handle(events: list[dict[str, int]]) -> None:
        if any(event["n"] for event in events):  # the server may split a batch as it likes
            raise ValueError("one of them is bad")

    for number in (1, 2, 3):
        await log.publish({"n": number})
    async with started(broker):
        letters = await log.letters(3)
        await log.settled("fast")
        await log.publish({"n": 0})
        await log.settled("fast")
    assert sorted(each["original_sequence"] for each in letters) == [1, 2, 3]


async def test_a_redrive_is_for_its_durable_only_and_resolves_the_case(
    settings: Settings, client: Client
) -> None:
    log = Log(settings.nats_url.get_secret_value(), client, settings.subject_prefix)
    broker = broker_of(log)
    answers = await client.subscribe(f"{log.prefix}.answers")
    is_mended = False
    others: list[str] = []

    @subscriber(broker, log, **PULL)
    @broker.publisher(f"{log.prefix}.answers")
    async def handle(event: dict[str, str]) -> str:
        if not is_mended:
            raise TimeoutError("no tile server")
        return "answered"

    @subscriber(broker, log, **PULL | {"durable": "other"})
    @broker.publisher(f"{log.prefix}.answers")
    async def other(event: dict[str, str]) -> str:
        others.append(event["event_id"])
        return "other"

    async with started(broker):
        await log.publish({"event_id": "e1"})
        await log.letters(1)
        await drain_log(settings)
        is_mended = True
        assert await redrive_timeouts(quick(settings), selection=TIMEOUTS) is not None
        await log.settled("fast")
        await log.settled("other")
        await drain_log(settings)
    [failure] = failures(settings)
    assert (failure["status"], failure["consumer_name"]) == ("resolved", "fast")
    assert others == ["e1"]
    assert [(await answers.next_msg(timeout=5)).data for _ in range(2)] == [b"other", b"answered"]
    with pytest.raises(TimeoutError):  # nothing is published for a message that was skipped
        await answers.next_msg(timeout=0.2)


async def test_without_the_log_nothing_is_acknowledged(log: Log) -> None:
    broker = broker_of(log)
    calls: list[int] = []

    @subscriber(broker, log, **PULL)
    async def handle(event: dict[str, int]) -> None:
        calls.append(event["n"])
        raise ValueError("bad")

    await log.js.delete_stream(log.names.dead_letters)

    async def came_again() -> bool:
        return bool((await log.js.consumer_info(log.names.events, "fast")).num_redelivered)

    async with started(broker):
        await log.publish({"n": 1})
        await until(came_again)
        assert await log.pending("fast") == (0, 1)
        await ensure_streams(log.js, log.names)
        await log.letters(1)
        await log.settled("fast")
    assert calls == [1]


async def test_a_restart_of_nats_loses_no_failure(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    server = nats_server_factory()
    async with opened(server.url) as log:
        broker = broker_of(log, max_retries=1)
        calls: list[int] = []

        @subscriber(broker, log, **PULL, config=ConsumerConfig(ack_wait=2))
        async def handle(number: int) -> None:
            calls.append(number)
            if len(calls) == 3:
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            raise ValueError(f"bad {number}")

        for number in range(6):
            await log.publish(number)
        async with started(broker):
            letters = await log.letters(6, 120)
            await log.settled("fast", 120)
    assert sorted(each["original_data"] for each in letters) == list(range(6))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
async def test_other_subscribers_are_named_at_the_start_and_left_as_they_are(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    broker = broker_of(log)
    seen_by: list[str] = []
    subject = f"{log.prefix}.analysis.ndvi"

    @broker.subscriber(subject)
    async def core(event: Any) -> None:
        seen_by.append("core")
        raise ValueError("bad")

    @broker.subscriber("a.key", kv_watch=f"kv-{log.prefix}")
    async def key_value(event: Any) -> None:
        seen_by.append("key_value")

    @broker.subscriber(f"objects-{log.prefix}", obj_watch=True)
    async def objects(event: Any) -> None: ...

    @subscriber(broker, log, ordered_consumer=True)
    async def ordered(event: Any) -> None:
        seen_by.append("ordered")
        raise ValueError("bad")

    @subscriber(broker, log, pull_sub=True, durable="first", ack_policy=AckPolicy.ACK_FIRST)
    async def first(event: Any) -> None: ...

    @subscriber(broker, log, pull_sub=True)
    async def ephemeral(event: Any) -> None: ...

    with caplog.at_level(logging.WARNING):
        async with started(broker):
            store = await log.client.jetstream().key_value(f"kv-{log.prefix}")
            await store.put("a.key", b"1")
            await log.publish({"n": 1})
            await seen(seen_by, 3)
    said = [each.getMessage() for each in caplog.records if "ubscriber" in each.getMessage()]
    left_alone = {each.split()[1] for each in said if "does not record failures" in each}
    assert left_alone == {"core", "key_value", "objects", "ordered", "first"}
    assert [each.split()[1] for each in said if "no durable" in each] == ["ephemeral"]
    assert sorted(seen_by) == ["core", "key_value", "ordered"]
    await log.letters(0)


async def test_the_asyncapi_document_shows_the_channel_of_the_dead_letters() -> None:
    from sahool_dlq.events import NATSConsumerConfig

    broker = NatsBroker("nats://nats:4222")
    faststream_dead_letters(broker, NATSConsumerConfig(name="fast-service"))
    document = AsyncAPI(broker).to_specification().to_jsonable()
    channel = document["channels"]["DeadLetters"]
    assert channel["address"] == "sahool.dlq.{event_type}"
    assert document["operations"]["DeadLetters"]["action"] == "send"
    schema = document["components"]["schemas"]["FailedEvent"]
    assert {"error_type", "stack_trace", "original_data"} <= set(schema["properties"])
