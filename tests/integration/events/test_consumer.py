"""The consumer library on a real NATS: the fate of each event, and the content of dead letters."""

import asyncio
import json

import pytest

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.events import ConsumerContext, ProcessingResult
from sahool_dlq.redrive.origin import original_event
from support.consumer_log import (
    DEAD_LETTER,
    RETRY,
    SUCCESS,
    Calls,
    Log,
    running,
    seen,
)


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
    message_id = f"{letter['failure_id']}-{letter['first_attempt_at']}"
    assert stored.headers == {"Nats-Msg-Id": message_id}  # no Nats-* header of the original
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


async def test_the_trace_continues_in_the_dead_letter_and_in_its_redrive(log: Log) -> None:
    trace = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "vendor=t61rcWkgMzE,other=1",
    }
    async with running(log.config(), Calls(RETRY)):
        await log.publish({}, headers=trace)
        [stored] = await log.stored(1)
    letter = json.loads(stored.data or b"")
    message_id = f"{letter['failure_id']}-{letter['first_attempt_at']}"
    assert stored.headers == trace | {"Nats-Msg-Id": message_id}
    assert letter["traceparent"] == trace["traceparent"]
    redriven = await original_event(log.client, LogMessage("", 1, 0, stored.data or b""))
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
    assert [each["error_type"] for each in letter["attempts"]] == ["ValueError"] * 3
    assert letter["first_attempt_at"] < letter["attempts"][0]["at"]


async def test_an_invalid_result_is_a_failure_that_says_so(log: Log) -> None:
    async def forgetful(context: ConsumerContext) -> ProcessingResult:
        return None

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
        (asyncio.CancelledError(), "CancelledError"),  # of a task that the handler awaited
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
