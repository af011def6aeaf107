"""Progress messages to the server, so that it does not deliver running messages again."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable

import nats.errors
from nats.aio.msg import Msg

from sahool_dlq.jetstream.pull import Delivery, EventKey

_OLD_SHARE = 1 / 3  # of ack_wait: events stored for longer are reported early …
_OLD_SECONDS = 0.1  # … after this time in progress


class Heartbeats:
    """Reports messages in progress, old ones early.

    `in_hand` returns the message of an event, or None if it is settled. Errors are ignored: without
    a report the server delivers the message again.
    """

    def __init__(
        self,
        ack_wait_seconds: float,
        in_hand: Callable[[EventKey], Msg | None],
        answer: Callable[[Msg, bytes], Awaitable[None]],
    ) -> None:
        self._ack_wait_seconds = ack_wait_seconds
        self._in_hand = in_hand
        self._answer = answer
        self._old: list[EventKey] = []  # not reported yet
        self._has_old = asyncio.Event()

    def begin(self, delivery: Delivery) -> None:
        """Report an event early if a restart of the server would deliver it again at once.

        After a restart, or a change of the consumer's leader, ack_wait counts from when the event
        was stored, unless it was reported in progress.
        """
        age_seconds = time.time() - delivery.timestamp_ns / 1e9
        if age_seconds > self._ack_wait_seconds * _OLD_SHARE:
            self._old.append(delivery.event)
            self._has_old.set()

    async def say_early_for_ever(self) -> None:
        """Report old events; most are settled before that."""
        while True:
            await self._has_old.wait()
            await asyncio.sleep(_OLD_SECONDS)
            self._has_old.clear()
            old, self._old = self._old, []
            await self.say(old)

    async def say(self, events: Iterable[EventKey]) -> None:
        """Report those that are not settled."""
        with contextlib.suppress(nats.errors.Error, OSError):
            for event in events:
                if (msg := self._in_hand(event)) is not None:
                    await self._answer(msg, b"+WPI")
