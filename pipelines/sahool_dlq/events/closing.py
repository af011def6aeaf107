"""How a service ends: a flag, one deadline for everything, and tasks that do not end."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from sahool_dlq.events.cause import late_handler

T = TypeVar("T")

GRACE_SECONDS = 4.0  # beyond `shutdown_seconds`, for everything that follows the handlers
CUT_SECONDS = 2.0  # of these, for cancelled tasks
_AGAIN_SECONDS = 1.0  # before a task that goes on is cancelled again
_LEAST_SECONDS = 0.1  # for each last step, even if it is late


class Closing(asyncio.Event):
    """The flag that a service ends; the time starts at the first request to end."""

    def __init__(self, shutdown_seconds: float) -> None:
        super().__init__()
        self.has_cut_off = False  # a handler that did not end by itself
        self.shutdown_seconds = shutdown_seconds
        self._began_at: float | None = None  # of the monotonic clock

    @property
    def has_begun(self) -> bool:
        """Whether the service was told to end, even if the loop does not know it yet."""
        return self._began_at is not None

    def begin(self) -> None:
        """Start the time; a signal handler may call it at any moment."""
        if self._began_at is None:
            self._began_at = time.monotonic()

    def set(self) -> None:
        """Start the time, and wake up all who wait for the end."""
        self.begin()
        super().set()

    def seconds_left(self) -> float:
        """Time that handlers may still run, in seconds."""
        return max(0, self._until() - time.monotonic())

    def last_seconds(self, at_most: float) -> float:
        """Time for the rest, in seconds: giving back events, closing the connection."""
        left = self._until() + GRACE_SECONDS - time.monotonic()
        return max(_LEAST_SECONDS, min(left, at_most))

    def _until(self) -> float:
        began_at = time.monotonic() if self._began_at is None else self._began_at
        return began_at + self.shutdown_seconds


async def end(tasks: Iterable[asyncio.Task[Any]], seconds: float) -> None:
    """Cancel tasks and wait for them, at most for this time.

    Tasks that ignore it are cancelled again: `asyncio.wait_for` of Python 3.11, nats-py and
    handlers can swallow a cancellation. A task that is already being cancelled first gets a moment.
    """
    until = time.monotonic() + seconds
    pending = {task for task in tasks if not task.done()}
    is_again = False
    while pending:
        for task in pending:
            if is_again or not task.cancelling():
                task.cancel()
        left = max(0, until - time.monotonic())
        _, pending = await asyncio.wait(pending, timeout=min(left, _AGAIN_SECONDS))
        if not left:
            return
        is_again = True


def is_cancelled_still() -> bool:
    """Whether the running task still has a pending request to end.

    `asyncio.TaskGroup` of Python 3.11 and 3.12 leaves one, and so do libraries that never revoke
    it.
    """
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling() or getattr(task, "_must_cancel", False))


async def forget_cancellations() -> None:
    """Remove all cancellation requests from the running task.

    They would disturb or end the next thing that the task waits for.
    """
    task = asyncio.current_task()
    if task is None or not is_cancelled_still():
        return
    while task.cancelling():
        task.uncancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task.cancelling():
        task.uncancel()


async def outcome_of(
    call: Awaitable[T], seconds: float | None, is_cutting_off: Callable[[], bool]
) -> T:
    """The result of a handler, within `seconds`; afterwards its task has no pending cancellation.

    Raises what the handler raises, and TimeoutError if it is late. A CancelledError is the
    handler's own, unless `is_cutting_off()`: then CancelledError is raised, whatever the handler
    does.
    """
    timer = asyncio.timeout(seconds) if seconds else None
    try:
        if timer is None:
            result = await call
        else:
            async with timer:
                result = await call
    except (SystemExit, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        await forget_cancellations()
        if is_cutting_off():
            raise asyncio.CancelledError from error
        if timer is not None and timer.expired():
            late = late_handler(seconds or 0)
            if isinstance(error, asyncio.CancelledError):
                raise TimeoutError(late) from error
            if isinstance(error, TimeoutError) and not error.args:
                error.args = (late,)
        raise
    if is_cancelled_still():
        await forget_cancellations()
    return result
