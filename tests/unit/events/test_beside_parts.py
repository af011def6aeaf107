"""The state kept for handlers whose events another library pulls."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest
from faststream.exceptions import SkipMessage
from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.events.attempts import AttemptLog, Attempts
from sahool_dlq.events.beside import letters
from sahool_dlq.events.beside.faststream import _settle
from sahool_dlq.events.beside.in_hand import Call
from sahool_dlq.events.beside.letters import Letter, Letters
from sahool_dlq.events.beside.settler import Settler
from sahool_dlq.events.beside.taskiq import _for_ever
from sahool_dlq.events.beside.terms import Terms
from sahool_dlq.events.config import NATSConsumerConfig
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
    held.hold(letter(3, 40))  # again, which needs no more space
    assert held.of(delivery(2, 2)) is not None
    held.forget(letter(2, 0))
    held.hold(letter(4, 40))
    assert [held.of(delivery(n, 2)) is not None for n in (3, 4)] == [True, True]
    held.hold(letter(5, 400))  # the one at work is held, whatever its size
    assert [held.of(delivery(n, 2)) is not None for n in (3, 4, 5)] == [False, False, True]


async def test_listening_continues_after_a_timeout_and_ends_where_the_broker_ends_it() -> None:
    began = 0

    async def listen() -> AsyncGenerator[Any, None]:
        nonlocal began
        began += 1
        yield began
        if began == 1:
            raise TimeoutError

    async with asyncio.timeout(10):
        assert [each async for each in _for_ever(listen)] == [1, 2]


async def test_a_skipped_event_was_not_called_for() -> None:
    log = AttemptLog(Subjects(), "EVENTS", "tiles")  # which no stream keeps
    settler = Settler(NATSConsumerConfig(name="tiles"), Terms(30), log)
    attempts = Attempts(datetime.now(UTC), delivery_count=3, begun_count=2, failed_count=1)
    msg = Msg(Client(), "a.b", "$JS.ACK.EVENTS.tiles.3.1.1.1.0", b"{}")
    await _settle(Call(settler, msg, delivery(1, 3), {}, attempts, "handle"), SkipMessage())
    assert (attempts.begun_count, attempts.unfinished_count) == (1, 0)
    assert not msg.is_acked
