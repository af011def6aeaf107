"""A pipeline stage that prepares the next item while the previous one is used."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

_T = TypeVar("_T")


async def ahead(source: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    """The items of `source`, each requested while the previous one is used.

    An error of the source is raised in the place of its item, after all items before it.
    """
    async with aclosing(source):
        following = asyncio.ensure_future(anext(source, None))
        try:
            while (item := await following) is not None:
                following = asyncio.ensure_future(anext(source, None))
                held = [item]
                del item
                yield held.pop()  # keep no reference here: it may be many megabytes
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
