"""The named steps of a redrive: the runner may show them, as Prefect does."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

__all__ = ["Step", "plainly"]

Done = TypeVar("Done")


class Step(Protocol):
    """Executes one step with this `name`, and returns its result.

    A step that `is_repeatable` may be repeated if a server was down.
    """

    async def __call__(
        self, name: str, work: Callable[[], Awaitable[Done]], *, is_repeatable: bool = False
    ) -> Done: ...


async def plainly(
    name: str,  # noqa: ARG001  (signature of Prefect's steps)
    work: Callable[[], Awaitable[Done]],
    *,
    is_repeatable: bool = False,  # noqa: ARG001  (signature of Prefect's steps)
) -> Done:
    """Execute a step once, and show nothing."""
    return await work()
