"""Handlers that nats-py calls: retried and dead-lettered like those of `NATSConsumer`."""

import asyncio
import json
import logging

import pytest
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from sahool_dlq.deadletter import ids
from sahool_dlq.errors import StreamError
from sahool_dlq.events import DeadLetter, ProcessingResult, Retry, dead_letter, with_dead_letters
from support.consumer_log import Log, seen
from support.plain_handlers import pulling


def redrive_headers(log: Log, consumer: str, token: str) -> dict[str, str]:
    root = ids.failure_id("EVENTS", 1, 2, "plain")
    return {
        "Nats-Msg-Id": ids.redrive_id(root, 1),
        "Dlq-Redrive-Id": ids.redrive_id(root, 1),
        "Dlq-Redrive-Of": root,
        "Dlq-Redrive-Attempt": "1",
        "Dlq-Redrive-For": f"{log.names.events}/{consumer}",
        "Dlq-Redrive-Token": token,
    }


async def test_a_failure_is_retried_with_a_pause_and_kept_with_its_whole_trace(log: Log) -> None:
    at: list[float] = []

    @with_dead_letters(log.config(max_retries=2, retry_delay_seconds=0.2))
    async def handle(msg: Msg) -> None:
        at.append(asyncio.get_running_loop().time())
        try:
            json.loads(msg.data)["field"]
        except KeyError as error:
            raise ConnectionError("no tile server") from error

    async with pulling(log, handle):
        await log.publish({"event_id": "e1"}, headers={"X-Tag": "Grün"})
        [letter] = await log.letters(1)
        await log.settled("plain")
    assert len(at) == 3
    assert at[1] - at[0] > 0.15
    assert at[2] - at[1] > 0.3
    assert letter["dlq_reason"] == "max_retries_exceeded"
    assert (letter["error_type"], letter["error_message"]) == ("ConnectionError", "no tile server")
    assert "KeyError: 'field'" in letter["stack_trace"]
    assert "The above exception was the direct cause" in letter["stack_trace"]
    assert "sahool_dlq/events" not in letter["stack_trace"]
    assert [call["error_type"] for call in letter["attempts"]] == ["ConnectionError"] * 3
    assert (letter["retry_count"], letter["max_retries"]) == (2, 2)
    assert letter["consumer_service"] == "ndvi-service"
    assert letter["consumer_name"] == "plain"
    assert letter["handler"].endswith("handle")
    assert letter["original_headers"]["X-Tag"] == "Grün"
    assert letter["original_data"] == {"event_id": "e1"}


async def test_a_handler_says_what_becomes_of_an_event(log: Log) -> None:
    says = {
        "done": ProcessingResult.SUCCESS,
        "later": Retry(reason="not yet", delay_seconds=0.05),
        "never": DeadLetter(reason="the field was sold", dlq_reason="field_sold"),
        "odd": "a text",
    }

    @with_dead_letters(log.config(max_retries=1, retry_delay_seconds=0.05))
    async def handle(msg: Msg) -> ProcessingResult | Retry | DeadLetter | None:
        return says[json.loads(msg.data)]

    async with pulling(log, handle):
        for word in says:
            await log.publish(word)
        letters = {each["original_data"]: each for each in await log.letters(3)}
        await log.settled("plain")
    assert letters["later"]["error_message"] == "not yet"
    assert letters["never"]["dlq_reason"] == "field_sold"
    assert letters["never"]["retry_count"] == 0
    assert "returned 'a text'" in letters["odd"]["error_message"]


async def test_a_push_subscription_with_a_callback_is_served_alike(log: Log) -> None:
    calls: list[int] = []

    @with_dead_letters(log.config(max_retries=1, retry_delay_seconds=0.05))
    async def handle(msg: Msg) -> None:
        calls.append(json.loads(msg.data))
        if calls[-1]:
            raise ValueError("bad")

    js = log.client.jetstream()
    await js.subscribe(f"{log.prefix}.analysis.*", durable="plain", cb=handle)
    await log.publish(0)
    await log.publish(1)
    [letter] = await log.letters(1)
    await log.settled("plain")
    assert calls == [0, 1, 1]
    assert letter["original_data"] == 1


async def test_only_a_redrive_for_this_consumer_is_handled_and_reported_with_its_token(
    log: Log,
) -> None:
    handled: list[dict[str, str]] = []

    @with_dead_letters(log.config())
    async def handle(msg: Msg) -> None:
        handled.append(dict(msg.headers or {}))

    told = await log.client.subscribe(f"{log.prefix}.redrive.>")
    token = "11111111-2222-4333-8444-555555555555"
    async with pulling(log, handle):
        await log.publish({"n": 1}, headers=redrive_headers(log, "other", token))
        ours = redrive_headers(log, "plain", token)
        del ours["Nats-Msg-Id"]  # the stream has one with that id already
        await log.publish({"n": 2}, headers=ours)
        news = json.loads((await told.next_msg(timeout=30)).data)
        await log.settled("plain")
    assert [headers["Dlq-Redrive-For"] for headers in handled] == [f"{log.names.events}/plain"]
    assert news["redrive_id"] == token
    assert news["consumer"] == f"{log.names.events}/plain"
    assert (news["attempt"], news["actor"]) == (1, "ndvi-service")
    assert [msg.subject for msg in await log.stored(1)] == [f"{log.prefix}.redrive.succeeded"]


async def test_a_handler_that_is_slow_gets_its_event_once(log: Log) -> None:
    calls: list[int] = []

    @with_dead_letters(log.config())
    async def handle(msg: Msg) -> None:
        calls.append(msg.metadata.num_delivered)
        await asyncio.sleep(1.5)  # this time is what is tested

    async with pulling(log, handle, ack_wait=0.6):
        await log.publish({})
        await seen(calls, 1)
        await log.settled("plain")
    assert calls == [1]


async def test_a_handler_that_takes_too_long_is_a_failure(log: Log) -> None:
    @with_dead_letters(log.config(handler_timeout_seconds=0.1))
    async def handle(msg: Msg) -> None:
        await asyncio.Event().wait()

    async with pulling(log, handle):
        await log.publish({})
        [letter] = await log.letters(1)
    assert letter["error_type"] == "TimeoutError"
    assert letter["error_message"] == "The handler took longer than 0.1 s."


async def test_the_end_of_a_program_is_no_failure(log: Log) -> None:
    calls: list[int] = []

    @with_dead_letters(log.config())
    async def handle(msg: Msg) -> None:
        calls.append(msg.metadata.num_delivered)
        if len(calls) == 1:
            await asyncio.Event().wait()

    async with pulling(log, handle):
        await log.publish({})
        await seen(calls, 1)
    async with pulling(log, handle):
        await log.settled("plain")
    assert calls == [1, 2]
    await log.letters(0)


@pytest.mark.parametrize("kind", ["core", "ordered", "all"])
async def test_what_cannot_be_acknowledged_one_by_one_is_refused(log: Log, kind: str) -> None:
    refused: asyncio.Queue[Exception] = asyncio.Queue()

    @with_dead_letters(log.config())
    async def handle(msg: Msg) -> None:
        raise AssertionError("never called")

    async def callback(msg: Msg) -> None:
        try:
            await handle(msg)
        except StreamError as error:
            await refused.put(error)

    subject = f"{log.prefix}.analysis.*"
    js = log.client.jetstream()
    if kind == "core":
        await log.client.subscribe(subject, cb=callback)
        await log.client.publish(f"{log.prefix}.analysis.x", b"{}")
        words = "was not delivered by a JetStream consumer"
    elif kind == "ordered":
        await js.subscribe(subject, ordered_consumer=True, cb=callback)
        await log.publish({})
        words = "use a durable that is acknowledged explicitly"
    else:
        config = ConsumerConfig(ack_policy=AckPolicy.ALL)
        await js.subscribe(subject, durable="all", config=config, manual_ack=True, cb=callback)
        await log.publish({})
        words = "acknowledges single events|acknowledge them one by one"
    with pytest.raises(StreamError, match=words):
        raise await asyncio.wait_for(refused.get(), 30)


def test_a_handler_that_is_not_async_is_refused_where_it_is_written(log: Log) -> None:
    with pytest.raises(TypeError, match="is not async"):

        @with_dead_letters(log.config())
        def handle(msg: Msg) -> None: ...


async def test_a_limit_of_deliveries_loses_no_failure(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    @with_dead_letters(log.config(max_retries=9, retry_delay_seconds=0.05))
    async def handle(msg: Msg) -> None:
        raise ValueError("bad")

    with caplog.at_level(logging.WARNING):
        async with pulling(log, handle, max_deliver=2):
            await log.publish({})
            [letter] = await log.letters(1)
    assert (letter["dlq_reason"], letter["retry_count"]) == ("max_retries_exceeded", 1)
    assert "set max_deliver to -1" in caplog.text


async def test_a_service_that_retries_by_itself_gives_an_event_up(log: Log) -> None:
    config = log.config(max_retries=2)
    given_up: list[bool] = []

    async def handle(msg: Msg) -> None:
        try:
            raise ValueError("bad")
        except ValueError as error:
            if msg.metadata.num_delivered < 3:
                await msg.nak()
            else:
                given_up.append(await dead_letter(msg, error, config, dlq_reason="given_up"))

    async with pulling(log, handle):
        await log.publish({"n": 1})
        [letter] = await log.letters(1)
        await log.settled("plain")
    assert given_up == [True]
    assert (letter["dlq_reason"], letter["error_message"]) == ("given_up", "bad")
    assert letter["retry_count"] == 2
    assert letter["handler"].endswith("handle")
    assert 'raise ValueError("bad")' in letter["stack_trace"]
