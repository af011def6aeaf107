"""The events that this process is handling: one call each, however often they are delivered."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.deadletter.headers import Headers
from sahool_dlq.events.attempts import Attempts
from sahool_dlq.events.beside.terms import Terms
from sahool_dlq.events.outbox import PUBLISH_ERRORS
from sahool_dlq.events.results import HandlerResult
from sahool_dlq.jetstream.pull import Delivery, EventKey

if TYPE_CHECKING:
    from sahool_dlq.events.beside.settler import Settler

__all__ = ["Call", "InHand", "client_of"]

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Call:
    """An event whose handler is running."""

    settler: "Settler"
    msg: Msg
    delivery: Delivery  # the latest
    headers: Headers
    attempts: Attempts | None  # the calls before; None for a first delivery
    handler: str  # as the dead letter names it
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    in_progress: asyncio.Task[None] | None = None
    is_suspect: bool = False  # it may kill the process

    async def end(self, result: HandlerResult) -> None:
        """Act on the handler's result; see `Settler.end`."""
        await self.settler.end(self, result)

    async def give_back(self) -> None:
        """Let the event be delivered again at once: an interrupted call is not a failure."""
        await self.settler.give_back(self)

    async def skip(self) -> None:
        """Do not acknowledge the event, which was not called for; see `leave`."""
        await self.settler.skip(self)

    def leave(self) -> None:
        """Do not acknowledge the event: the server delivers it again later."""
        self.settler.leave(self)


class InHand:
    """The unsettled calls of one durable consumer in this process."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._calls: dict[EventKey, Call] = {}
        self._suspects = asyncio.Lock()

    def holds(self, call: Call) -> bool:
        """Whether the call is not settled yet."""
        return self._calls.get(call.delivery.event) is call

    def add(self, call: Call) -> None:
        """Add the call of an event."""
        self._calls[call.delivery.event] = call

    async def came_again(self, msg: Msg, delivery: Delivery) -> bool:
        """Whether the event is being handled already: then its answer is for this delivery too.

        The server delivers an event again if it gets no progress message: in an outage, after a
        restart, or while a handler blocks the event loop.
        """
        if (call := self._calls.get(delivery.event)) is None:
            return False
        logger.info("Event %s came again while it was being handled", delivery)
        msg._ackd = True  # noqa: SLF001  (so that no framework answers it)
        call.msg.reply, call.msg._client = msg.reply, client_of(msg)  # noqa: SLF001  (nats-py has no public name for it)
        call.delivery = delivery
        if call.attempts is not None:
            call.attempts.delivery_count = delivery.delivery_count
        if not self.terms.is_known:
            self.terms = self.terms._replace(ack_wait_seconds=self.terms.ack_wait_seconds / 2)
        if call.in_progress is not None:
            self.keep_in_progress(call)
        return True

    def keep_in_progress(self, call: Call) -> None:
        """Tell the server regularly that the event is in progress."""
        if call.in_progress is not None:
            call.in_progress.cancel()
        is_late = call.in_progress is not None
        call.in_progress = asyncio.create_task(self._say_in_progress(call.msg, is_late=is_late))

    async def _say_in_progress(self, msg: Msg, *, is_late: bool) -> None:
        while not msg.is_acked and not client_of(msg).is_closed:
            if not is_late:
                await asyncio.sleep(self.terms.ack_wait_seconds / 3)
            is_late = False
            with contextlib.suppress(*PUBLISH_ERRORS):
                await msg.in_progress()

    async def is_next_suspect(self, call: Call) -> bool:
        """Wait until no other event runs that may kill the process; False if that takes too long.

        So other events are not blamed for the crash.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.terms.ack_wait_seconds / 2):
                call.is_suspect = await self._suspects.acquire()
        return call.is_suspect

    def stop(self, call: Call) -> None:
        """The handler has ended."""
        if call.in_progress is not None:
            call.in_progress.cancel()
            call.in_progress = None
        if call.is_suspect:
            call.is_suspect = False
            self._suspects.release()

    def release(self, call: Call) -> None:
        """Forget the call: the event is settled, or will be delivered again."""
        self.stop(call)
        if self.holds(call):
            del self._calls[call.delivery.event]


def client_of(msg: Msg) -> Client:
    """The connection that delivered a message."""
    return msg._client  # noqa: SLF001  (nats-py has no public name for it)
