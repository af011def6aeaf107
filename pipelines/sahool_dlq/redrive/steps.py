"""The named steps of a redrive: who runs one may show them, as Prefect does."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

__all__ = ["Step", "plainly"]

Done = TypeVar("Done")


class Step(Protocol):
    """Carries out one step, called `name`, and returns what it came to."""

    async def __call__(self, name: str, work: Callable[[], Awaitable[Done]]) -> Done: ...


async def plainly(name: str, work: Callable[[], Awaitable[Done]]) -> Done:  # noqa: ARG001
    """Carry a step out, and show nothing."""
    return await work()
