"""The named steps of a redrive: who runs one may show them, as Prefect does."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

__all__ = ["Step", "plainly"]

Done = TypeVar("Done")


class Step(Protocol):
    """Carries out one step, called `name`, and returns what it came to.

    One that `is_repeatable` may be done again where a server was away.
    """

    async def __call__(
        self, name: str, work: Callable[[], Awaitable[Done]], *, is_repeatable: bool = False
    ) -> Done: ...


async def plainly(
    name: str,  # noqa: ARG001
    work: Callable[[], Awaitable[Done]],
    *,
    is_repeatable: bool = False,  # noqa: ARG001
) -> Done:
    """Carry a step out once, and show nothing."""
    return await work()
