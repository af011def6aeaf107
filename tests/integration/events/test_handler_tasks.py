"""Handlers and libraries that cancel the task they run in stop nothing but their own call.

`asyncio.TaskGroup` of Python 3.11 and 3.12 leaves a cancellation counted. Older libraries cancel
their caller's task and never undo it.
"""

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from types import TracebackType

import pytest

from sahool_dlq.events import (
    ConsumerContext,
    DLQAction,
    DLQConsumer,
    DLQConsumerConfig,
    ProcessingResult,
)
from sahool_dlq.events.monitor.dlq_event import DLQEvent
from support import ROOT
from support.consumer_log import SUCCESS, Calls, Log, in_full, running, seen


class OldTimeout:
    """A time limit as in libraries before Python 3.11: the cancellation is never undone."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_late = False

    async def __aenter__(self) -> None:
        task = _myself()

        def cancel() -> None:
            self._is_late = True
            task.cancel()

        self._timer = asyncio.get_running_loop().call_later(self._seconds, cancel)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._is_late and kind is asyncio.CancelledError:
            raise OSError("no answer in time")


def _myself() -> "asyncio.Task[object]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def _part(number: int) -> None:
    await asyncio.sleep(0.01)
    if number == 2:
        raise OSError("part 2 did not answer")


async def _group() -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(_part(number))


async def _old_timeout() -> None:
    async with OldTimeout(0.01):
        await asyncio.sleep(60)


async def _cancelled_at_the_next_wait() -> None:
    _myself().cancel()
    raise OSError("no answer")


async def _cancelled_and_taken_back_too_late() -> None:
    _myself().cancel()
    _myself().uncancel()
    raise OSError("no answer")


async def _escapes() -> None:
    _myself().cancel()
    await asyncio.sleep(60)


async def _cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


WAYS = [
    (_group, "ExceptionGroup"),
    (_old_timeout, "OSError"),
    (_cancelled_at_the_next_wait, "OSError"),
    (_cancelled_and_taken_back_too_late, "OSError"),
    (_escapes, "CancelledError"),
    (_cancelled_future, "CancelledError"),
]


@pytest.mark.parametrize(("fails", "error_type"), WAYS)
async def test_it_is_a_failure_retried_with_a_pause_and_kept_with_its_exception(
    log: Log, fails: Callable[[], Awaitable[None]], error_type: str
) -> None:
    at: list[float] = []

    async def handle(context: ConsumerContext) -> ProcessingResult:
        at.append(time.monotonic())
        await fails()
        return SUCCESS

    config = log.config(max_retries=2, retry_delay_seconds=0.5, exponential_backoff=False)
    async with running(config, handle) as consumer:
        await log.publish({})
        [letter] = await log.letters(1)
        await log.settled()
        assert consumer.is_connected
    assert len(at) == 3
    assert min(later - earlier for earlier, later in itertools.pairwise(at)) > 0.35
    assert (letter["error_type"], letter["dlq_reason"]) == (error_type, "max_retries_exceeded")
    assert [each["error_type"] for each in letter["attempts"]] == [error_type] * 3
    assert fails.__name__ in letter["stack_trace"]
    assert "sahool_dlq/events" not in letter["stack_trace"]


@pytest.mark.parametrize("fails", [way for way, _ in WAYS])
async def test_a_handler_that_gets_over_it_has_succeeded(
    log: Log, fails: Callable[[], Awaitable[None]]
) -> None:
    calls: list[int] = []

    async def handle(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        with contextlib.suppress(OSError, asyncio.CancelledError, ExceptionGroup):
            await fails()
        return SUCCESS

    async with running(log.config(), handle):
        await log.publish({}, headers={"Dlq-Redrive-Id": "1", "Dlq-Redrive-Of": "2"})
        await log.settled()
    assert calls == [0]
    await log.letters(0)


async def test_a_handler_that_is_late_after_such_a_group_is_timed_out(log: Log) -> None:
    async def handle(context: ConsumerContext) -> ProcessingResult:
        with contextlib.suppress(ExceptionGroup):
            await _group()
        await asyncio.sleep(60)
        return SUCCESS

    async with running(log.config(handler_timeout_seconds=0.3), handle):
        await log.publish({})
        [letter] = await log.letters(1)
    assert letter["error_type"] == "TimeoutError"
    assert letter["error_message"] == "The handler took longer than 0.3 s."
    assert "in handle" in letter["stack_trace"]


async def test_a_cancellation_that_comes_while_its_dead_letter_is_written_loses_nothing(
    log: Log,
) -> None:
    async def handle(context: ConsumerContext) -> ProcessingResult:
        if context.attempt == 0:  # its timer fires later, whatever the task does then
            asyncio.get_running_loop().call_later(0.3, _myself().cancel)
        raise OSError("no answer")

    async with running(log.config(max_retries=0), handle):
        await log.js.delete_stream(log.names.dead_letters)
        await log.publish({})
        await asyncio.sleep(0.6)
        await log.js.add_stream(
            name=log.names.dead_letters, subjects=list(log.names.subjects.log), duplicate_window=10
        )
        [letter] = await log.letters(1)
        await log.settled()
    assert letter["error_message"] == "no answer"


async def test_a_group_that_fails_in_a_monitors_handler_counts_as_its_failure(log: Log) -> None:
    calls: list[int] = []

    async def handle(event: DLQEvent) -> DLQAction:
        calls.append(event.sequence)
        with contextlib.suppress(ExceptionGroup):
            await _group()
        _myself().cancel()
        await asyncio.sleep(60)
        return DLQAction.DISCARD

    async with running(log.config(), Calls(ValueError("the cause"))):
        await log.publish({})
        await log.letters(1)
    monitor = DLQConsumer(
        DLQConsumerConfig(
            servers=[log.url],
            name="monitor",
            dlq_subject=f"{log.prefix}.dlq.>",
            dlq_stream_name=log.names.dead_letters,
            max_handler_failures=3,
            retry_delay_seconds=0.05,
        )
    )
    assert await monitor.connect()
    await monitor.subscribe(handle)
    monitor.start_in_background()
    await seen(calls, 3)
    info_of = monitor._intakes[0].durable

    async def acknowledged() -> int:
        info = await log.js.consumer_info(log.names.dead_letters, info_of)
        return info.num_ack_pending or 0

    async with asyncio.timeout(30):
        while await acknowledged():
            await asyncio.sleep(0.05)
    await monitor.close()
    assert calls == [1, 1, 1]


PROGRAM = """
import asyncio, sys
from sahool_dlq.events import NATSConsumerConfig, start_consumer

async def handler(context):
    print("called", flush=True)
    await asyncio.sleep(60)

async def main():
    await start_consumer(handler, NATSConsumerConfig.model_validate_json(sys.argv[1]))
    await asyncio.to_thread(sys.stdin.readline)
    if sys.argv[2] == "all":
        for task in asyncio.all_tasks():
            task.cancel()

asyncio.run(main())
"""


@pytest.mark.parametrize("who", ["all", "asyncio.run"])
async def test_a_program_that_cancels_every_task_in_the_end_has_no_failed_events(
    log: Log, who: str
) -> None:
    await log.publish({})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        in_full(log.config(max_retries=0)),
        who,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"called\n"
        await process.communicate(b"\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        await seen(calls, 1, seconds=20)  # given back: it need not wait for ack_wait
        await log.settled()
    await log.letters(0)
    assert json.loads(calls[0].data) == {}
