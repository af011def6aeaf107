"""The rate limits of redrives."""

import asyncio

from sahool_dlq.redrive.publish.rate_limit import Budget


async def test_a_turn_comes_at_once_while_there_is_budget() -> None:
    budget, stop = Budget(1e9, 1e9, {}), asyncio.Event()
    assert [await budget.turn("ndvi", stop) for _ in range(100)] == [True] * 100


async def test_a_service_that_waits_holds_up_no_other() -> None:
    budget, stop = Budget(1e9, 1e9, {"slow": 1e-6}), asyncio.Event()
    assert await budget.turn("slow", stop)
    waiting = asyncio.create_task(budget.turn("slow", stop))
    assert await budget.turn("quick", stop)
    assert not waiting.done()
    stop.set()
    assert await waiting is False


async def test_who_is_stopped_takes_no_turn_from_the_others() -> None:
    budget, stopped, stop = Budget(1e-6, 1e9, {}), asyncio.Event(), asyncio.Event()
    stopped.set()
    assert await budget.turn("ndvi", stopped) is False
    assert await budget.turn("ndvi", stop) is True
