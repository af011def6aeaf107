"""What is held and heard where something else pulls the events."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest

from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.events.attempts import AttemptLog, Attempts
from sahool_dlq.events.beside import letters
from sahool_dlq.events.beside.letters import Letter, Letters
from sahool_dlq.events.beside.taskiq import _for_ever
from sahool_dlq.events.counters import Counters
from sahool_dlq.jetstream.pull import Delivery


def delivery(sequence: int, count: int = 1) -> Delivery:
    return Delivery("EVENTS", "tiles", count, sequence, sequence, 0)


def letter(sequence: int, size: int) -> Letter:
    attempts = Attempts(datetime.now(UTC))
    return Letter("sahool.dlq.a", {}, b"x" * size, False, attempts, delivery(sequence))


def test_letters_are_held_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "_MOST_HELD_BYTES", 100)
    held = Letters(AttemptLog(Subjects(), "EVENTS", "tiles"), Counters())
    for sequence in range(1, 4):
        held.hold(letter(sequence, 40))
    assert [held.of(delivery(n, 2)) is not None for n in (1, 2, 3)] == [False, True, True]
    held.hold(letter(3, 40))  # again, which takes no more room
    assert held.of(delivery(2, 2)) is not None
    held.forget(letter(2, 0))
    held.hold(letter(4, 40))
    assert [held.of(delivery(n, 2)) is not None for n in (3, 4)] == [True, True]
    held.hold(letter(5, 400))  # the one at work is held, whatever its size
    assert [held.of(delivery(n, 2)) is not None for n in (3, 4, 5)] == [False, False, True]


async def test_listening_goes_on_after_a_timeout_and_ends_where_the_broker_ends_it() -> None:
    began = 0

    async def listen() -> AsyncGenerator[Any, None]:
        nonlocal began
        began += 1
        yield began
        if began == 1:
            raise TimeoutError

    async with asyncio.timeout(10):
        assert [each async for each in _for_ever(listen)] == [1, 2]
