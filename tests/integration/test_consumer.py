"""The consumer library on a real NATS: what becomes of an event, and what its dead letter says."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from consumer_log import DEAD_LETTER, RETRY, SUCCESS, Log, new_prefix, opened, running, seen, until
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from platform_log import publish_raw

from pipelines.deadletter import ids
from pipelines.deadletter.message import LogMessage
from pipelines.errors import StreamError
from pipelines.events import ConsumerContext, NATSConsumer, ProcessingResult, start_consumer
from pipelines.jetstream.streams import ensure_streams
from pipelines.redrive.origin import original_event
from pipelines.settings import Settings


@pytest.fixture
async def log(nats_url: str) -> AsyncIterator[Log]:
    async with opened(nats_url) as log:
        yield log


class Calls(list[ConsumerContext]):
    """A handler that remembers its calls and does what it is told."""

    def __init__(self, *outcomes: ProcessingResult | BaseException) -> None:
        self.outcomes = outcomes
        self.at: list[float] = []

    async def __call__(self, context: ConsumerContext) -> ProcessingResult:
        self.append(context)
        self.at.append(time.monotonic())
        outcome = self.outcomes[min(len(self), len(self.outcomes)) - 1]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


# -- what becomes of an event


async def test_success_acknowledges(log: Log) -> None:
    calls = Calls(SUCCESS)
    async with running(log.config(), calls) as consumer:
        assert consumer.is_connected
        sequence = await log.publish({"n": 1}, headers={"trace": "abc", "name": "Gänse"})
        await log.settled()
    [context] = calls
    assert (context.attempt, context.sequence, context.max_retries) == (0, sequence, 0)
    assert (context.stream, context.subject) == (log.names.events, f"{log.prefix}.analysis.ndvi")
    assert context.headers == {"trace": "abc", "name": "Gänse"}
    assert context.data == b'{"n": 1}'
    assert context.published_at is not None
    assert context.published_at.utcoffset() is not None
    assert context.redrive_of is None
    await log.letters(0)


async def test_a_failure_is_retried_with_backoff_then_dead_lettered(log: Log) -> None:
    calls = Calls(ValueError("first"), RETRY, OSError("last"))
    config = log.config(max_retries=2, retry_delay_seconds=0.3)
    async with running(config, calls):
        await log.publish({"event_id": "e1"})
        [letter] = await log.letters(1)
        await log.settled()
    assert [context.attempt for context in calls] == [0, 1, 2]
    first, second = calls.at[1] - calls.at[0], calls.at[2] - calls.at[1]
    assert first >= 0.24
    assert second >= 0.48
    assert (letter["error_type"], letter["error_message"]) == ("OSError", "last")
    assert (letter["retry_count"], letter["max_retries"]) == (2, 2)
    assert letter["dlq_reason"] == "max_retries_exceeded"
    assert [(a["error_type"], a["error_message"]) for a in letter["attempts"]] == [
        ("ValueError", "first"),
        ("", ""),
        ("OSError", "last"),
    ]


class FieldService:
    async def on_ndvi(self, context: ConsumerContext) -> ProcessingResult:
        try:
            {}["missing"]
        except KeyError as error:
            raise RuntimeError("no tile for field \x00 7") from error
        return SUCCESS


async def test_a_dead_letter_has_every_canonical_key(log: Log) -> None:
    body = (
        b'{"z": 1.10, "a": 12345678901234567890, "event_id": "e-1", "tenant_id": "t-1",\n'
        b' "field_id": 7, "source_service": "satellite", "e": 1E5, "u": "\\u00e4\xc3\xa4"}'
    )
    headers = {
        "Nats-Msg-Id": "m-1",
        "Nats-Expected-Stream": log.names.events,
        "traceparent": "00-abc-def-01",
        "name": "Gänse",
    }
    async with running(log.config(), FieldService().on_ndvi):
        sequence = await log.publish(body, headers=headers)
        [stored] = await log.stored(1)
        await log.settled()
    assert stored.data is not None
    assert stored.data.endswith(b', "original_data": ' + body + b"}")
    assert stored.subject == f"{log.prefix}.dlq.ndvi"
    letter = json.loads(stored.data)
    original = await log.js.get_msg(log.names.events, sequence)
    assert stored.headers == {"Nats-Msg-Id": letter["failure_id"]}  # no Nats-* of the original
    assert letter["original_headers"] == headers
    timestamp_ns = letter["original_timestamp_ns"]
    assert letter["failure_id"] == ids.failure_id(log.names.events, sequence, timestamp_ns, "ndvi")
    assert original.seq == letter["original_sequence"]
    trace = letter["stack_trace"]
    assert "KeyError: 'missing'" in trace
    assert "direct cause of the following exception" in trace
    assert "RuntimeError: no tile for field" in trace
    assert trace.count("in on_ndvi") == 2
    assert "subscription.py" not in trace
    for key in ("first_attempt_at", "last_attempt_at", "dlq_timestamp"):
        assert letter[key].endswith("+00:00")
    expected = {
        "event_id": "e-1",
        "original_subject": f"{log.prefix}.analysis.ndvi",
        "event_type": "ndvi",
        "source_service": "satellite",
        "tenant_id": "t-1",
        "field_id": "7",
        "farmer_id": None,
        "error_type": "RuntimeError",
        "error_message": "no tile for field \N{REPLACEMENT CHARACTER} 7",
        "retry_count": 0,
        "max_retries": 0,
        "dlq_reason": "max_retries_exceeded",
        "original_stream": log.names.events,
        "consumer_name": "ndvi",
        "consumer_service": "ndvi-service",
        "consumer_version": "1.2.3",
        "handler": "FieldService.on_ndvi",
        "payload_encoding": "json",
        "traceparent": "00-abc-def-01",
    }
    assert {key: letter[key] for key in expected} == expected


async def test_the_trace_goes_on_in_the_dead_letter_and_in_its_redrive(log: Log) -> None:
    trace = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "vendor=t61rcWkgMzE,other=1",
    }
    async with running(log.config(), Calls(RETRY)):
        await log.publish({}, headers=trace)
        [stored] = await log.stored(1)
    letter = json.loads(stored.data or b"")
    assert stored.headers == trace | {"Nats-Msg-Id": letter["failure_id"]}
    assert letter["traceparent"] == trace["traceparent"]
    redriven = await original_event(log.js, LogMessage("", 1, 0, stored.data or b""))
    assert redriven.headers == trace


async def test_dead_letter_goes_at_once(log: Log) -> None:
    calls = Calls(DEAD_LETTER)
    async with running(log.config(max_retries=5), calls):
        await log.publish({"event_id": "e1"}, headers={"Nats-Msg-Id": "m1"})
        await log.publish({}, headers={"Nats-Msg-Id": "m2"})
        letters = await log.letters(2)
        await log.settled()
    assert len(calls) == 2
    assert {letter["dlq_reason"] for letter in letters} == {"handler_dead_letter"}
    assert {letter["retry_count"] for letter in letters} == {0}
    assert sorted(letter["event_id"] for letter in letters) == ["e1", "m2"]
    assert {letter["stack_trace"] for letter in letters} == {None}


async def test_retries_hold_up_no_other_event(log: Log) -> None:
    done: list[int] = []

    async def handler(context: ConsumerContext) -> ProcessingResult:
        if context.data == b"0":
            return RETRY
        done.append(int(context.data))
        return SUCCESS

    config = log.config(max_retries=9, retry_delay_seconds=60, max_concurrency=1)
    async with running(config, handler):
        for number in (0, 0, 0, *range(1, 30)):
            await log.publish(number)
        await seen(done, 29, seconds=50)  # before the first retry is due
    assert sorted(done) == list(range(1, 30))
    assert await log.pending() == (0, 3)


async def test_the_delivery_count_survives_a_new_consumer(log: Log) -> None:
    config = log.config(max_retries=2, retry_delay_seconds=0.8)
    attempts = []
    await log.publish({})
    for _ in range(3):
        calls = Calls(ValueError("no"))
        async with running(config, calls):
            await seen(calls, 1)
        attempts.append([context.attempt for context in calls])
    assert attempts == [[0], [1], [2]]
    [letter] = await log.letters(1)
    assert len(letter["attempts"]) == 1  # those that this process saw


async def test_what_is_no_result_is_a_failure_that_says_so(log: Log) -> None:
    async def forgetful(context: ConsumerContext) -> ProcessingResult:
        return None  # type: ignore[return-value]

    async with running(log.config(), forgetful):
        await log.publish({})
        [letter] = await log.letters(1)
    assert letter["error_type"] == "TypeError"
    assert letter["error_message"] == "The handler returned None, not a ProcessingResult."


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Deep(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UnspeakableError(), "UnspeakableError"),
        (Deep("below Exception"), "Deep"),
        (asyncio.CancelledError(), "CancelledError"),  # of something that the handler awaited
        (ExceptionGroup("many", [ValueError("a"), OSError("b")]), "ExceptionGroup"),
        (ValueError("x" * 3_000_000), "ValueError"),
    ],
)
async def test_whatever_a_handler_raises_is_its_failure(
    log: Log, error: BaseException, kind: str
) -> None:
    calls = Calls(error)
    async with running(log.config(max_retries=1), calls) as consumer:
        await log.publish({"event_id": "e1"})
        [letter] = await log.letters(1)
        await log.settled()
        assert consumer.is_connected
    assert len(calls) == 2
    assert letter["error_type"] == kind
    assert letter["dlq_reason"] == "max_retries_exceeded"
    assert letter["original_data"] == {"event_id": "e1"}


async def test_without_a_dlq_an_exhausted_event_is_given_up(log: Log) -> None:
    async with running(log.config(dlq_enabled=False), Calls(RETRY)):
        await log.publish({})
        await log.settled()
    await log.letters(0)


# -- bodies and headers


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"\xff\x00\xfe", b"[NaN]", b"{}{}", b'"\\ud800"', b"[" * 5_000]
)
async def test_a_body_that_is_no_json_arrives_as_base64(log: Log, body: bytes) -> None:
    async with running(log.config(), Calls(RETRY)):
        await log.publish(body, headers={"Nats-Msg-Id": "m1"})
        [letter] = await log.letters(1)
    assert letter["payload_encoding"] == "base64"
    assert base64.b64decode(letter["original_data"]["base64"]) == body
    assert letter["event_id"] == "m1"


async def test_a_large_body_goes_to_the_object_store_and_comes_back(log: Log) -> None:
    body = json.dumps({"event_id": "big", "x": "y" * 1_048_000}).encode()
    assert log.client.max_payload - 1_000 < len(body) < log.client.max_payload
    calls = Calls(ValueError("too much"))
    async with running(log.config(), calls) as consumer:
        await log.publish(body)
        [stored] = await log.stored(1)
        await log.publish({"event_id": "small"})
        await log.stored(2)  # over the same connection
        assert consumer.is_connected
    letter = json.loads(stored.data or b"")
    pointer = letter["original_data"]["object"]
    assert letter["payload_encoding"] == "object"
    assert (letter["event_id"], letter["error_type"]) == ("big", "ValueError")
    assert (pointer["size"], pointer["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    message = LogMessage(str(stored.subject), 1, 0, stored.data or b"")
    assert (await original_event(log.js, message)).body == body


async def test_a_stream_with_a_smaller_limit_gets_a_pointer(log: Log) -> None:
    dlq = (await log.js.stream_info(log.names.dead_letters)).config
    dlq.max_msg_size = 20_000
    await log.js.update_stream(dlq)
    async with running(log.config(), Calls(RETRY)):
        await log.publish(json.dumps({"event_id": "big", "x": "y" * 50_000}).encode())
        [letter] = await log.letters(1)
    assert letter["payload_encoding"] == "object"


async def test_a_status_header_hides_nothing(log: Log) -> None:
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        for status in ("404", "503", "100"):
            await log.publish(b"", headers={"Status": status, "Description": "Server Shutdown"})
        await log.settled()
    assert sorted(context.headers["Status"] for context in calls) == ["100", "404", "503"]


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        (b"ndvi", b"NATS/1.0 2\xff0 \xff\xfe\r\n\r\n"),
        (b"ndvi", b"NATS/1.0\r\n\xff\xfe: \xff\r\nok: yes\r\n\r\n"),
        (b"ndvi", b"NATS/1.0"),
        (b"\xff\xfe", None),
    ],
)
async def test_bytes_that_the_client_can_not_read_stop_nothing(
    log: Log, subject: bytes, headers: bytes | None
) -> None:
    calls = Calls(ValueError("odd"), SUCCESS)
    async with running(log.config(), calls):
        publish_raw(
            Settings(nats_url=log.url),
            b"%b.analysis.%b" % (log.prefix.encode(), subject),
            headers,
            b"{}",
        )
        [letter] = await log.letters(1)
        await log.publish({"n": 2})
        await log.settled()
    assert len(calls) == 2
    assert letter["original_data"] == {}


# -- redrives


def redrive_headers(log: Log, consumer: str, **changes: str) -> dict[str, str]:
    root = ids.failure_id("EVENTS", 1, 2, "ndvi")
    return {
        "Dlq-Redrive-Id": ids.redrive_id(root, 1),
        "Dlq-Redrive-Of": root,
        "Dlq-Redrive-Attempt": "1",
        "Dlq-Redrive-For": f"{log.names.events}/{consumer}",
        **changes,
    }


async def test_a_redrive_for_another_is_acknowledged_and_skipped(log: Log) -> None:
    calls = Calls(ValueError("never called"))
    async with running(log.config(), calls) as consumer:
        await log.publish({}, headers=redrive_headers(log, "other"))
        await log.settled()
        assert consumer._subscriptions[0].counters.skipped == 1
    assert calls == []
    await log.letters(0)


async def test_a_redrive_for_us_is_told_before_it_is_acknowledged(log: Log) -> None:
    calls = Calls(SUCCESS)
    subscription = await log.client.subscribe(f"{log.prefix}.redrive.>")
    async with running(log.config(), calls):
        headers = redrive_headers(log, "ndvi")
        await log.publish({}, headers=headers)
        told = await subscription.next_msg(timeout=30)
        await log.settled()
    assert told.subject == f"{log.prefix}.redrive.succeeded"
    news = json.loads(told.data)
    assert news["failure_id"] == headers["Dlq-Redrive-Of"] == calls[0].redrive_of
    assert news["redrive_id"] == headers["Dlq-Redrive-Id"]
    assert (news["attempt"], news["actor"]) == (1, "ndvi-service")
    assert news["consumer"] == f"{log.names.events}/ndvi"


async def test_a_success_that_can_not_be_told_is_acknowledged_all_the_same(log: Log) -> None:
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        await log.js.delete_stream(log.names.dead_letters)
        await log.publish({}, headers=redrive_headers(log, "ndvi"))
        await log.settled()
    assert len(calls) == 1


async def test_a_redrive_that_fails_again_says_whose_it_was(log: Log) -> None:
    headers = redrive_headers(log, "ndvi")
    async with running(log.config(), Calls(RETRY)):
        await log.publish({}, headers=headers)
        [letter] = await log.letters(1)
    assert letter["redrive_of"] == headers["Dlq-Redrive-Of"]
    assert letter["redrive_id"] == headers["Dlq-Redrive-Id"]
    assert letter["redrive_attempt"] == 1
    assert letter["failure_id"] != letter["redrive_of"]


async def test_forged_redrive_headers_do_not_end_the_connection(log: Log) -> None:
    calls = Calls(SUCCESS)
    long = "x" * 30_000  # the server takes 64 KiB of headers
    forged = redrive_headers(log, "ndvi", **{"Dlq-Redrive-Id": long, "Dlq-Redrive-Of": long})
    async with running(log.config(), calls) as consumer:
        await log.publish({}, headers=forged)
        await log.publish({}, headers=redrive_headers(log, "ndvi", **{"Dlq-Redrive-Attempt": "x"}))
        await log.settled()
        assert consumer.is_connected
    assert len(calls) == 2
    await log.letters(0)


# -- closing and slow handlers


async def test_close_lets_a_running_handler_finish(log: Log) -> None:
    finished: list[int] = []

    async def slow(context: ConsumerContext) -> ProcessingResult:
        await asyncio.sleep(0.5)
        finished.append(context.sequence)
        return SUCCESS

    async with running(log.config(), slow):
        await log.publish({})
        await until(lambda: _is(log.pending(), (0, 1)))
    assert finished == [1]
    await log.settled()


async def _is_pulling(consumer: NATSConsumer) -> bool:
    return consumer._subscriptions[0]._is_pulling


async def _is(awaitable: Any, value: Any) -> bool:
    return bool(await awaitable == value)


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
    assert calls[0].attempt == 1


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
        await until(lambda: _is(_is_pulling(consumer), False))
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
    assert (await last())["sequence"] > total["sequence"]  # close says the last word


# -- streams and consumers that are there already


@pytest.mark.parametrize("subject", ["{}.>", "{}.*.*", "{}.dlq.*", "*.triage.x"])
async def test_a_filter_that_matches_its_own_dead_letters_is_refused(
    log: Log, subject: str
) -> None:
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    with pytest.raises(ValueError, match="would eat its own dead letters: use narrower filters"):
        await consumer.subscribe(Calls(SUCCESS), subject.format(log.prefix))
    await consumer.close()


async def test_a_subject_without_a_stream_is_refused(log: Log) -> None:
    consumer = NATSConsumer(log.config())
    with pytest.raises(RuntimeError, match="connect"):
        await consumer.subscribe(Calls(SUCCESS))
    assert await consumer.connect()
    with pytest.raises(StreamError, match="No stream holds"):
        await consumer.subscribe(Calls(SUCCESS), f"{log.prefix}.nowhere.x")
    with pytest.raises(RuntimeError, match="Nothing to consume"):
        await consumer.start()
    await consumer.close()


async def test_a_stream_of_other_subjects_is_consumed_and_left_as_it_is(log: Log) -> None:
    orders, subject = f"ORDERS_{log.prefix}", f"orders-{log.prefix}.>"
    await log.js.add_stream(name=orders, subjects=[subject])
    await log.js.delete_stream(log.names.events)  # nobody holds the events' subjects
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
        async with running(log.config(), Calls(ValueError("no"))):
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


async def test_a_subscription_that_nobody_would_see_to_is_refused(log: Log) -> None:
    more = f"{log.prefix}.actions.*"
    consumer = await start_consumer(Calls(SUCCESS), log.config())
    with pytest.raises(RuntimeError, match="subscribe before start"):
        await consumer.subscribe(Calls(SUCCESS), more, consumer_name="more")
    await until(lambda: _is(_is_pulling(consumer), True))
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
        ({"ack_policy": AckPolicy.ALL}, "not acknowledged explicitly"),
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
