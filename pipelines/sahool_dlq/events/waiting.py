"""The events that a process gave back for a retry, while they wait for it."""

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from nats.aio.msg import Msg

from sahool_dlq.events.attempts import Attempts
from sahool_dlq.jetstream.pull import Delivery

_MOST_EVENTS = 10_000
_MOST_BODY_BYTES = 64 << 20
_OVERDUE_SECONDS = 5.0  # after which a missing retry is looked up
_MOST_OVERDUE = 100  # maximum lookups at a time


@dataclass(slots=True)
class Waiting:
    """One event that waits for its retry."""

    msg: Msg  # as it was delivered last; its body is `null` where too many bytes wait
    delivery: Delivery
    attempts: Attempts
    handler: str  # what called for it, where that is needed
    due_at: float  # when the server delivers it again, of the monotonic clock
    is_gone: bool = False  # its stream did not have it at the last check


class WaitingEvents:
    """The waiting events, with their bodies, in case their stream removes them before the retry.

    If there are too many, the oldest are dropped.
    """

    def __init__(self) -> None:
        self._events: dict[tuple[int, int], Waiting] = {}
        self._body_bytes = 0

    def keep(
        self,
        msg: Msg,
        delivery: Delivery,
        attempts: Attempts,
        delay_seconds: float,
        handler: str = "",
    ) -> None:
        """Remember an event until its retry comes."""
        self.forget(delivery)
        if len(self._events) >= _MOST_EVENTS:
            self.forget(next(iter(self._events.values())).delivery)
        if self._body_bytes + len(msg.data) > _MOST_BODY_BYTES:
            msg = replace(msg, data=b"null")
        self._body_bytes += len(msg.data)
        due_at = time.monotonic() + delay_seconds
        self._events[delivery.event] = Waiting(msg, delivery, attempts, handler, due_at)

    def attempts(self, delivery: Delivery) -> Attempts | None:
        """The calls of this process; None if it made none for this event."""
        known = self._events.get(delivery.event)
        return known.attempts if known else None

    def at(self, sequence: int) -> Waiting | None:
        """The event of this sequence that waits."""
        return next((each for event, each in self._events.items() if event[0] == sequence), None)

    def forget(self, delivery: Delivery) -> None:
        """Forget an event: it is done, or another process has it."""
        if known := self._events.pop(delivery.event, None):
            self._body_bytes -= len(known.msg.data)

    def overdue(self, in_hand: Collection[tuple[int, int]]) -> list[Waiting]:
        """Events whose retry is overdue; the next call gives the next ones."""
        now = time.monotonic()
        found = [
            waiting
            for event, waiting in self._events.items()
            if waiting.due_at + _OVERDUE_SECONDS < now and event not in in_hand
        ][:_MOST_OVERDUE]
        for waiting in found:
            waiting.due_at = now
        return found
