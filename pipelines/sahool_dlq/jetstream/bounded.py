"""A time limit that works with any code."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def within(seconds: float, work: Coroutine[Any, Any, object]) -> None:
    """Run something for at most this many seconds; raises its errors, but no error if it is late.

    `asyncio.timeout` keeps waiting if a cancellation is swallowed, which nats-py and
    `asyncio.wait_for` of Python 3.11 do.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            task.result()
    finally:
        task.cancel()
