"""The messages of one durable consumer on the server, each handled by its own task.

The common part of a service's subscription and the monitor: pulling through outages, heartbeats, an
orderly end. The subclass decides what to do with a message.
"""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from contextlib import aclosing
from typing import NamedTuple, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from sahool_dlq.errors import NotPermittedError, StreamError
from sahool_dlq.events.acknowledgements import Acknowledgements, nak
from sahool_dlq.events.closing import CUT_SECONDS, Closing, end, forget_cancellations, outcome_of
from sahool_dlq.events.heartbeats import Heartbeats
from sahool_dlq.events.outbox import PUBLISH_ERRORS
from sahool_dlq.events.place import Place
from sahool_dlq.jetstream.bounded import within
from sahool_dlq.jetstream.pull import Delivery, EventKey, Puller, PullStalledError, delivery_of

logger = logging.getLogger(__name__)

_PULL_SECONDS = 5.0
_PAUSE_SECONDS = 5.0  # before an unsettled message is delivered again
_AHEAD_SECONDS = 0.1  # messages are fetched this long in advance
_MOST_AHEAD = 500
WRITE_SECONDS = 1.0  # for what is still to be written in the end


T = TypeVar("T")


class _Arrival(NamedTuple):
    msg: Msg
    delivery: Delivery
    at: float  # of the monotonic clock


class _Running(NamedTuple):
    msg: Msg
    task: asyncio.Task[None]
    since: float  # of the monotonic clock


class Intake(ABC):
    """The consumer that `wanted` describes on `stream`, pulled from until `closing`.

    A subclass settles each message in `_settle`. An unsettled message is delivered again: after a
    pause if `_settle` raised, at once if it was interrupted by the end.
    """

    def __init__(
        self,
        connection: Client,
        *,
        stream: str,
        wanted: ConsumerConfig,
        ack_wait_seconds: float,
        max_concurrency: int,
        closing: Closing,
        priority_group: str | None = None,
        must_start_there: bool = False,  # refuse an existing consumer that began elsewhere
    ) -> None:
        self.connection = connection  # the owner replaces one that ended for good
        self.durable = str(wanted.name)
        self.stopped = asyncio.Event()
        self.error: BaseException | None = None  # why it stopped by itself
        self._stream = stream
        self._place = Place(
            stream,
            wanted,
            self._tell_rewound,
            priority_group=priority_group,
            must_start_there=must_start_there,
        )
        self._ack_wait_seconds = ack_wait_seconds
        self._max_concurrency = max_concurrency
        self._closing = closing
        self._is_cutting_off = False  # what a handler raises from now on is no failure
        self._waiting: dict[EventKey, _Arrival] = {}  # oldest first
        self._running: dict[EventKey, _Running] = {}
        self._has_room = asyncio.Event()
        self._acks = Acknowledgements(self.durable, self._answer)
        self._heartbeats = Heartbeats(ack_wait_seconds, self._in_hand, self._answer)
        self._left: list[Msg] = []  # to be given back once nothing more is pulled
        self._is_pulling = False
        self._puller: Puller | None = None
        self._seconds_each = 0.0  # that the latest messages took, on average
        self._log_is_writable = asyncio.Event()  # nothing is taken or started while it is not set
        self._log_is_writable.set()
        self.stopped.set()

    @property
    def stream(self) -> str:
        """The stream of the consumer."""
        return self._stream

    @property
    def in_flight(self) -> int:
        """Messages in progress in this process: being settled, or waiting for it."""
        return len(self._running) + len(self._waiting)

    @property
    def is_log_writable(self) -> bool:
        """False while a message to the log cannot be written, which stops fetching."""
        return self._log_is_writable.is_set()

    async def prepare(self) -> None:
        """Create or update the durable consumer on the server; a new creation is reported."""
        await self._place.prepare(self.connection)

    def _tell_rewound(self, what: str) -> None:
        """Report that the consumer went back in its stream."""
        logger.warning("%s", what)

    async def run(self) -> None:
        """Work until closing, then finish messages in progress, or give them back."""
        self.stopped.clear()
        self._is_pulling = True
        pull = asyncio.create_task(self._pull_for_ever())
        beat = asyncio.create_task(self._keep_in_progress())
        early = asyncio.create_task(self._heartbeats.say_early_for_ever())
        acks = asyncio.create_task(self._acks.send_for_ever())
        stop = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({stop, pull}, return_when=asyncio.FIRST_COMPLETED)
            if pull.done():
                pull.result()  # it may have ended with an error
            await end([pull], self._closing.last_seconds(CUT_SECONDS))
            await self._stop_pulling()
            while self._running and (left := self._closing.seconds_left()):
                tasks = [running.task for running in self._running.values()]
                await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for _ in range(2):  # asyncio.run cancels tasks again that a program cancelled before
                with contextlib.suppress(asyncio.CancelledError):
                    await self._cut_off(pull, beat, early, acks, stop)
                    break
            self.stopped.set()

    async def _cut_off(self, *own: asyncio.Task[object]) -> None:
        """End running tasks; their messages are delivered again."""
        self._is_cutting_off = True
        self._closing.set()
        waiting, self._waiting = self._waiting, {}
        handlers = [running.task for running in self._running.values()]
        for task in handlers:
            self._closing.has_cut_off = True
            task.cancel()  # also one that a library of its own has cancelled before
        await end([*own, *handlers], self._closing.last_seconds(CUT_SECONDS))
        if stubborn := sum(not task.done() for task in handlers):
            logger.error(
                "%s: %d handlers are still running although they were cancelled",
                self.durable,
                stubborn,
            )
        self._left += [each.msg for each in waiting.values()]
        self._left += [each.msg for each in self._running.values()]
        await self._stop_pulling()
        await within(self._closing.last_seconds(WRITE_SECONDS), self._acks.send())

    async def _stop_pulling(self) -> None:
        """Stop deliveries, then give back messages that are not started."""
        if self._puller is not None:
            await within(self._closing.last_seconds(WRITE_SECONDS), self._puller.close())
            self._left += self._puller.left()
        self._is_pulling = False
        await within(self._closing.last_seconds(WRITE_SECONDS), self._give_back_left())

    async def _pull_for_ever(self) -> None:
        pin = None
        while not self._closing.has_begun:
            connection = self.connection
            puller = Puller(connection, self._stream, self.durable, self._place.terms, pin)
            self._puller = puller
            try:
                await puller.open()
                await self._pull(puller)
            except NotPermittedError as error:
                logger.warning("%s cannot pull: %s", self.durable, error)
            except (PullStalledError, nats.errors.Error, OSError) as error:
                logger.info("%s: pulling again in one second (%s)", self.durable, error)
            if not self._closing.has_begun:
                await puller.close()
                for msg in puller.left():
                    await self._give_back(msg)
                pin = puller.pin
                await self._recover(connection)

    async def _pull(self, puller: Puller) -> None:
        """Pull messages; ends with an error, after which an open request is void, or at closing."""
        while not self._closing.has_begun:
            await self._log_is_writable.wait()
            wanted = self._max_concurrency + self._ahead()
            room = wanted - self.in_flight
            if room <= 0 or (self._waiting and room < wanted / 2):
                self._has_room.clear()
                await self._has_room.wait()
                continue
            async with aclosing(puller.pull(room, _PULL_SECONDS)) as arriving:
                async for msg in arriving:
                    self._accept(msg)

    def _ahead(self) -> int:
        """The number of messages to have ready for the next moment.

        None ahead if calls take long or their time is unknown: another process may be free.
        """
        if not self._seconds_each:
            return 0
        return min(_MOST_AHEAD, int(_AHEAD_SECONDS * self._max_concurrency / self._seconds_each))

    def _accept(self, msg: Msg) -> None:
        delivery = delivery_of(msg)
        self._place.follow(delivery)
        event = delivery.event
        if event in self._running:
            # The server missed our heartbeats in an outage. The running task's result also counts
            # for this delivery.
            logger.info(
                "%s: message %s was delivered again while it was being handled",
                self.durable,
                event[0],
            )
            return
        self._waiting[event] = _Arrival(msg, delivery, time.monotonic())
        self._start_waiting()
        self._heartbeats.begin(delivery)

    def _start_waiting(self) -> None:
        """Start a task for each waiting message, up to the limit.

        A separate task prevents changes of its context from reaching the next message.
        """
        while (
            self._waiting
            and len(self._running) < self._max_concurrency
            and self._log_is_writable.is_set()
        ):
            event = next(iter(self._waiting))
            msg, delivery, _ = self._waiting.pop(event)
            task = asyncio.create_task(self._process(msg, delivery))
            self._running[event] = _Running(msg, task, time.monotonic())

    def _end(self, event: EventKey) -> None:
        seconds = time.monotonic() - self._running.pop(event).since
        self._seconds_each = 0.9 * (self._seconds_each or seconds) + 0.1 * seconds
        self._start_waiting()
        self._has_room.set()

    async def _recover(self, connection: Client) -> None:
        """Wait for a working connection, and make sure that the consumer exists."""
        await asyncio.sleep(1)
        if connection.is_connected:
            try:
                await connection.rtt(2)
            except (
                nats.errors.Error,
                OSError,
            ):  # the connection no longer reads, whatever its state
                await connection.force_reconnect()
        while not self.connection.is_connected:  # noqa: ASYNC110  (nats-py has no event for it)
            await asyncio.sleep(0.1)
        # Well before the next pull, which would deliver finished or running messages again.
        await self._acks.send()
        await self._heartbeats.say([*self._running, *self._waiting])
        try:
            await self.prepare()
        except (*PUBLISH_ERRORS, StreamError) as error:
            logger.warning("%s could not be looked up: %s", self.durable, error)

    async def _process(self, msg: Msg, delivery: Delivery) -> None:
        """Settle one message; errors here do not lose it."""
        try:
            if self._closing.has_begun:
                await self._give_back(msg)  # nothing is begun any more
            else:
                await self._settle(msg, delivery)
        except asyncio.CancelledError:
            await forget_cancellations()
            if not self._closing.has_begun:
                logger.warning("%s: a library of a handler cancelled the task late", self.durable)
            await self._give_back(msg, 0 if self._closing.has_begun else _PAUSE_SECONDS)
        except (SystemExit, KeyboardInterrupt) as error:  # raised again after the cleanup
            self.error = self.error or error
            self._closing.set()
            await self._give_back(msg)
        except PUBLISH_ERRORS as error:
            logger.info("%s: a message will be delivered again (%s)", self.durable, error)
        except Exception:
            logger.exception("%s: a message will be delivered again", self.durable)
            await self._give_back(msg, _PAUSE_SECONDS)
        finally:
            self._end(delivery.event)

    @abstractmethod
    async def _settle(self, msg: Msg, delivery: Delivery) -> None:
        """Acknowledge or give back one message, or raise."""

    async def _outcome(self, call: Awaitable[T], seconds: float | None) -> T:
        """The result of a handler, within `seconds`; see `outcome_of`."""
        return await outcome_of(call, seconds, lambda: self._is_cutting_off)

    async def _keep_in_progress(self) -> None:
        while True:
            await asyncio.sleep(self._ack_wait_seconds / 3)
            await self._give_back_late()
            await self._heartbeats.say([*self._running, *self._waiting])

    def _in_hand(self, event: EventKey) -> Msg | None:
        found = self._running.get(event) or self._waiting.get(event)
        return found.msg if found else None

    async def _give_back_late(self) -> None:
        """Give messages to other processes that have waited here too long: the calls have become
        slow.
        """
        now = time.monotonic()
        for event, each in list(self._waiting.items()):
            is_late = now - each.at > self._ack_wait_seconds / 2
            if is_late and self._waiting.pop(event, None) is not None:
                await self._give_back(each.msg)

    def _acknowledge(self, msg: Msg) -> None:
        """Acknowledge a message soon."""
        self._acks.add(msg)

    async def _give_back(self, msg: Msg, delay_seconds: float = 0) -> None:
        """Let the server deliver the message again soon; after ack_wait it does so by itself.

        When closing, wait until the last pull request has ended. Otherwise the message would be
        delivered to that request at once, in vain, and one more delivery would be counted.
        """
        if self._closing.is_set() and self._is_pulling and not delay_seconds:
            self._left.append(msg)
            return
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._answer(msg, nak(delay_seconds))

    async def _give_back_left(self) -> None:
        while self._left:
            await self._give_back(self._left.pop(0))

    async def _answer(self, msg: Msg, answer: bytes) -> None:
        # Not by msg.ack(): the message may have come over a connection that has ended since.
        await self.connection.publish(msg.reply, answer)
