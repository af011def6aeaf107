"""SIGTERM and Ctrl-C: the first ends a program in order, the second immediately."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def set_by_signal(
    stop: asyncio.Event, on_signal: Callable[[int], object] | None = None
) -> Iterator[None]:
    """Set `stop` in the running loop at the first SIGTERM or SIGINT; the next one ends the process.

    `on_signal` is called with the signal's number immediately, even while a handler blocks the
    loop. The loop must run in the main thread.
    """
    loop = asyncio.get_running_loop()

    def first(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, end_process)
        if on_signal is not None:
            on_signal(number)
        loop.call_soon_threadsafe(stop.set)

    before = [(each, signal.signal(each, first)) for each in _SIGNALS]
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler)


def end_process(number: int, _: FrameType | None = None) -> None:
    """End the process as if the signal had killed it.

    Not with the signal itself: the kernel does not deliver it to the first process of a container.
    """
    os._exit(128 + number)
