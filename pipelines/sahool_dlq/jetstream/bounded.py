"""A bound that holds, whatever is bounded."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def within(seconds: float, work: Coroutine[Any, Any, object]) -> None:
    """Do something for so many seconds at most; raises what it raises, no error where it is late.

    `asyncio.timeout` waits on where a cancellation is swallowed: nats-py does, and so does
    `asyncio.wait_for` of Python 3.11.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            task.result()
    finally:
        task.cancel()
