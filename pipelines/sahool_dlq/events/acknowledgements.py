"""Answers to the server: acknowledgements, many in one write, kept through an outage; and nak."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.msg import Msg

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.002  # how long one waits for others, to be sent together
_PAUSE_SECONDS = 0.1  # before they are tried again, while there is no connection


class Acknowledgements:
    """Messages that are handled but not acknowledged yet.

    If the process dies in between, these messages are delivered again, as if it died before.
    """

    def __init__(self, durable: str, answer: Callable[[Msg, bytes], Awaitable[None]]) -> None:
        self._durable = durable
        self._answer = answer
        self._done: list[Msg] = []
        self._has_done = asyncio.Event()

    def add(self, msg: Msg) -> None:
        """Acknowledge it soon."""
        self._done.append(msg)
        self._has_done.set()

    async def send_for_ever(self) -> None:
        """Send added acknowledgements, and retry failed ones."""
        while True:
            await self._has_done.wait()
            await asyncio.sleep(_WAIT_SECONDS)
            await self.send()
            if self._done:
                await asyncio.sleep(_PAUSE_SECONDS)
                self._has_done.set()

    async def send(self) -> None:
        """Send all now; failed ones are kept and logged."""
        self._has_done.clear()
        done, self._done = self._done, []
        sent_count = 0
        try:
            for msg in done:
                await self._answer(msg, b"+ACK")
                sent_count += 1
        except (nats.errors.Error, OSError) as error:
            logger.info(
                "%s: acknowledgements are waiting for a connection (%s)", self._durable, error
            )
        finally:
            # Handled events should not be handled again: the next connection sends them.
            self._done[:0] = done[sent_count:]


def nak(delay_seconds: float) -> bytes:
    """The answer that gives a message back, to be delivered again after a delay."""
    return b'-NAK {"delay": %d}' % (delay_seconds * 1e9) if delay_seconds else b"-NAK"
