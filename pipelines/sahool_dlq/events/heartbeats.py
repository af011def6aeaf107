"""Word to the server that messages are still in hand, before it delivers them again."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable

import nats.errors
from nats.aio.msg import Msg

from sahool_dlq.jetstream.pull import Delivery

_OLD_SHARE = 1 / 3  # of ack_wait: the server is told early of what has been stored for longer …
_OLD_SECONDS = 0.1  # … and in hand for so long

Event = tuple[int, int]
"""`Delivery.event`."""


class Heartbeats:
    """Says of messages that they are in progress, of old ones early.

    `in_hand` gives the message of an event, or None where it is settled. What cannot be said is
    left: a server that hears nothing delivers again.
    """

    def __init__(
        self,
        ack_wait_seconds: float,
        in_hand: Callable[[Event], Msg | None],
        answer: Callable[[Msg, bytes], Awaitable[None]],
    ) -> None:
        self._ack_wait_seconds = ack_wait_seconds
        self._in_hand = in_hand
        self._answer = answer
        self._old: list[Event] = []  # the server was told nothing of them
        self._has_old = asyncio.Event()

    def begin(self, delivery: Delivery) -> None:
        """Say it early where a restart of the server would deliver this again at once.

        From then on, as after a change of the consumer's leader, ack_wait counts from when the
        event was stored, unless something was said of it.
        """
        age_seconds = time.time() - delivery.timestamp_ns / 1e9
        if age_seconds > self._ack_wait_seconds * _OLD_SHARE:
            self._old.append(delivery.event)
            self._has_old.set()

    async def say_early_for_ever(self) -> None:
        """Say it of old events: of most there is nothing more to say by then."""
        while True:
            await self._has_old.wait()
            await asyncio.sleep(_OLD_SECONDS)
            self._has_old.clear()
            old, self._old = self._old, []
            await self.say(old)

    async def say(self, events: Iterable[Event]) -> None:
        """Say it of those that are still in hand."""
        with contextlib.suppress(nats.errors.Error, OSError):
            for event in events:
                if (msg := self._in_hand(event)) is not None:
                    await self._answer(msg, b"+WPI")
