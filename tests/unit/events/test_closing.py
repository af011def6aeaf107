"""The end of a service: one deadline, and tasks that ignore their cancellation."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from sahool_dlq.events.closing import Closing, end, forget_cancellations
from sahool_dlq.jetstream.bounded import within


async def test_the_clock_runs_from_the_first_word() -> None:
    closing = Closing(shutdown_seconds=10)
    assert not closing.has_begun
    assert closing.seconds_left() == pytest.approx(10, abs=0.5)
    closing.begin()
    assert closing.has_begun
    assert not closing.is_set()
    await asyncio.sleep(0.2)
    closing.set()
    assert closing.seconds_left() <= 9.8
    assert closing.last_seconds(1) == 1
    assert closing.last_seconds(60) <= 13.8


async def test_a_deadline_that_is_over_leaves_a_moment_for_each_last_word() -> None:
    closing = Closing(shutdown_seconds=-100)
    closing.set()
    assert closing.seconds_left() == 0
    assert 0 < closing.last_seconds(1) < 0.5


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    ended = []

    async def deaf_once() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(1)

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    await end([task], 30)
    assert ended == [1]
    assert task.cancelled()


async def test_a_task_that_never_listens_is_left_behind() -> None:
    is_over = False

    async def deaf() -> None:
        while not is_over:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    began = time.monotonic()
    await end([task], 0.3)
    assert time.monotonic() - began < 5
    assert not task.done()
    is_over = True
    task.cancel()
    await task


async def test_a_task_that_cleans_up_already_is_not_interrupted() -> None:
    cleaned = []

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            cleaned.append(1)

    task = asyncio.create_task(cleans_up())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    await end([task], 30)
    assert cleaned == [1]


async def test_work_that_swallows_its_cancellation_is_waited_for_no_longer() -> None:
    is_over = asyncio.Event()

    async def deaf() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await is_over.wait()

    began = time.monotonic()
    await within(0.1, deaf())
    assert time.monotonic() - began < 5
    is_over.set()


async def test_what_work_raises_in_time_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        await within(5, fails())


def _myself() -> "asyncio.Task[object]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def _counted() -> None:
    _myself().cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)


async def _to_come() -> None:
    _myself().cancel()


async def _taken_back_but_to_come() -> None:
    _myself().cancel()
    _myself().uncancel()


@pytest.mark.parametrize("leave", [_counted, _to_come, _taken_back_but_to_come])
async def test_a_task_is_clean_whatever_was_left_of_cancellations(
    leave: Callable[[], Awaitable[None]],
) -> None:
    async def dirty_then_clean() -> str:
        await leave()
        await forget_cancellations()
        assert _myself().cancelling() == 0
        await asyncio.sleep(0.01)  # nothing is delivered any more
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        return "clean"

    assert await asyncio.create_task(dirty_then_clean()) == "clean"
