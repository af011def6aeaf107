"""A stage works exactly one item ahead; errors and the end arrive in order."""

import asyncio
import weakref
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from sahool_dlq.drain.prefetch import ahead


class Source:
    """Counts up to `last`, then fails; records how far it was read, and that it was closed."""

    def __init__(self, last: int, *, fails: bool = False) -> None:
        self.asked = 0
        self.is_closed = False
        self._last = last
        self._fails = fails

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            while self.asked < self._last:
                self.asked += 1
                yield self.asked
            if self._fails:
                raise OSError
        finally:
            self.is_closed = True


async def test_the_next_item_is_made_while_one_is_in_use_and_no_further() -> None:
    source = Source(9)
    async with aclosing(ahead(source.items())) as items:
        assert await anext(items) == 1
        for _ in range(5):
            await asyncio.sleep(0)
        assert source.asked == 2
    assert source.is_closed


async def test_an_error_comes_after_all_items_before_it() -> None:
    items = ahead(Source(3, fails=True).items())
    assert [await anext(items) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(OSError):
        await anext(items)


async def test_all_items_come_and_then_the_end() -> None:
    assert [item async for item in ahead(Source(4).items())] == [1, 2, 3, 4]


async def test_stages_behind_one_another_are_closed_together_in_the_midst_of_work() -> None:
    source = Source(9)

    async def slow(before: AsyncGenerator[int, None]) -> AsyncGenerator[int, None]:
        async with aclosing(before):
            async for item in before:
                yield item
                await asyncio.sleep(60)

    async with aclosing(ahead(slow(ahead(source.items())))) as items:
        assert await anext(items) == 1
        await asyncio.sleep(0)
    assert source.is_closed


async def test_what_was_taken_is_held_by_nobody_else() -> None:
    class Item:
        pass

    async def items() -> AsyncGenerator[Item, None]:
        yield Item()
        await asyncio.Event().wait()

    async with aclosing(ahead(items())) as following:
        seen = weakref.ref(await anext(following))
        await asyncio.sleep(0)
        assert seen() is None
