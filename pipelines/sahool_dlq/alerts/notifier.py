"""The notifier of a monitor: one message per outage, not one per dead letter or group."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from sahool_dlq.alerts.channels import Channel
from sahool_dlq.alerts.message import Message, ended, message_of, prints_of
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.errors import DLQError
from sahool_dlq.events.monitor.dlq_event import DLQEvent

logger = logging.getLogger(__name__)

_GATHER_SECONDS = 1.0  # before sending, so that the message can have a count
_PATIENCE_SECONDS = 10.0  # how long a dead letter waits for its message
_CLOSING_SECONDS = 5.0
_LOOK_SECONDS = 10.0  # between two looks for outages that are over


Route = Callable[[DLQEvent, str], Sequence[Channel] | None]
"""The channels of a dead letter of a group; None if nothing is sent about it."""
_Key = tuple[str, tuple[str, ...]]  # a cause, and the channels of its alerts


class UndeliveredError(DLQError):
    """No channel has accepted the alert yet; the caller tries again."""


@dataclass(slots=True)
class _Outage:
    """What fails now for one cause: its counts, and its message."""

    since: datetime  # the first dead letter's time
    until: datetime  # the last one's
    last_at: float  # clock of the last dead letter
    groups: dict[str, None] = field(default_factory=dict)  # in order
    services: dict[str, None] = field(default_factory=dict)
    count: int = 0
    told: int = 0  # those contained in a message
    started_at: float = 0  # clock of the last message
    delivery: asyncio.Task[bool] | None = None  # whether a channel has accepted the last message
    message: Message | None = None  # the last one
    sendings: dict[Channel, asyncio.Task[bool]] = field(default_factory=dict)  # of the last one

    @property
    def is_silent(self) -> bool:
        """Whether no message is sent or being sent."""
        return self.delivery is None or (self.delivery.done() and not _is_out(self.delivery))


class OutageNotifier:
    """Sends alerts about dead letters: the first of a cause, then a count after each cool-down.

    Groups of one cause are one outage with one message, and one entry in services with incidents.
    The entry is closed after a cool-down without failures.

    Called with a dead letter, it returns once a channel has accepted a message that covers it, and
    raises UndeliveredError if none has within ten seconds; sending to a channel that is down
    continues in the background. Without channels the message is logged. Nothing is sent about a
    group while `is_muted` says so. `route` gives the channels of a dead letter, None if nothing is
    to be sent; without it, all channels get it. Use it as an async context manager.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        redactor: Redactor,
        grouping: GroupingRules,
        *,
        cooldown_seconds: float,
        gather_seconds: float = _GATHER_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
        on_message: Callable[[Message], None] | None = None,
        is_muted: Callable[[str], bool] = lambda _: False,
        route: Route | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channels = channels
        self._redactor = redactor
        self._grouping = grouping
        self._cooldown_seconds = cooldown_seconds
        self._gather_seconds = gather_seconds
        self._look_seconds = look_seconds
        self._on_message = on_message or _log
        self._is_muted = is_muted
        self._route = route or (lambda _event, _group_id: self._channels)
        self._clock = clock
        self._outages: dict[_Key, _Outage] = {}
        self._deliveries: set[asyncio.Task[bool]] = set()

    async def __aenter__(self) -> Self:
        self._closing = asyncio.create_task(self._close_again())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give messages in progress a moment, then stop. Entries stay open: it may go on."""
        self._closing.cancel()
        await asyncio.gather(self._closing, return_exceptions=True)
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=_CLOSING_SECONDS)
        for task in self._deliveries:
            task.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        for channel in self._channels:
            channel.close()

    async def __call__(self, event: DLQEvent) -> None:
        """Make sure that a message covers this dead letter, unless its group is muted."""
        group_id, cause_id = prints_of(event, self._redactor, self._grouping)
        if self._is_muted(group_id):
            return
        channels = self._route(event, group_id)
        if channels is None:
            return
        now = self._clock()
        key = cause_id, tuple(channel.key for channel in channels)
        outage = self._outage(event, key, now)
        outage.count += 1
        outage.groups[group_id] = outage.services[event.service] = None
        if outage.is_silent or now - outage.started_at >= self._cooldown_seconds:
            outage.started_at = now
            outage.delivery = self._start(self._tell(event, cause_id, channels, outage))
        assert outage.delivery is not None
        left = outage.started_at + _PATIENCE_SECONDS - now
        done, _ = await asyncio.wait({outage.delivery}, timeout=max(left, 0))
        if not done or not _is_out(outage.delivery):
            outage.count -= 1  # it is delivered again
            raise UndeliveredError(f"No channel has accepted the alert about group {group_id} yet.")

    def _outage(self, event: DLQEvent, key: _Key, now: float) -> _Outage:
        """The outage of a cause; a new one after a cool-down without failures."""
        outage = self._outages.get(key)
        if outage is None or now - outage.last_at > self._cooldown_seconds:
            outage = self._outages[key] = _Outage(event.dlq_timestamp, event.dlq_timestamp, now)
        outage.last_at = now
        outage.since = min(outage.since, event.dlq_timestamp)
        outage.until = max(outage.until, event.dlq_timestamp)
        return outage

    async def _tell(
        self, event: DLQEvent, cause_id: str, channels: Sequence[Channel], outage: _Outage
    ) -> bool:
        """Send a message to these channels; True as soon as one has accepted it."""
        await asyncio.sleep(self._gather_seconds)
        message = message_of(
            event,
            cause_id,
            self._redactor,
            groups=list(outage.groups),
            services=list(outage.services),
            count=outage.count,
            new_count=outage.count - outage.told,
            since=outage.since,
        )
        self._on_message(message)
        told, outage.message = outage.count, message
        sendings = {channel: self._start(channel.deliver(message)) for channel in channels}
        outage.sendings = sendings
        is_out = not sendings
        for sending in asyncio.as_completed(sendings.values()):
            if is_out := await sending:
                break
        if is_out:
            outage.told = told
        return is_out

    async def _close_again(self) -> None:
        """Close the entries of outages that are over, until it is cancelled."""
        while True:
            await asyncio.sleep(self._look_seconds)
            for key, outage in list(self._outages.items()):
                is_over = self._clock() - outage.last_at > self._cooldown_seconds
                if is_over and await self._is_closed(outage) and self._outages.get(key) is outage:
                    del self._outages[key]

    async def _is_closed(self, outage: _Outage) -> bool:
        """Try once to close the entry of an outage, unless a message about it is still on its way.

        A try that failed is not repeated once there are failures again.
        """
        if outage.delivery is not None and not outage.delivery.done():
            return False
        silent = self._clock() - outage.last_at
        for channel, sending in list(outage.sendings.items()):
            if not sending.done():
                return False
            if channel.is_for_incidents and outage.message and _is_out(sending):
                message = ended(outage.message, outage.since, outage.until, silent)
                if not await channel.deliver(message, ()):
                    return False
            del outage.sendings[channel]
        return True

    def _start(self, work: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        task = asyncio.create_task(work)
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)
        return task


def _is_out(delivery: asyncio.Task[bool]) -> bool:
    return not delivery.cancelled() and delivery.exception() is None and delivery.result()


def _log(message: Message) -> None:
    logger.error("ALERT: %s\n%s", message.title, message.body)
