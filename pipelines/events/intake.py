"""The messages of one durable consumer on the server, each in hand of a task of its own.

What a service's subscription and the monitor share: pulling through outages, heartbeats, an orderly
end. What is done with a message, the subclass says.
"""

import asyncio
import contextlib
import logging
from contextlib import aclosing

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from pipelines.errors import StreamError
from pipelines.events.outbox import PUBLISH_ERRORS
from pipelines.jetstream.consumers import ensure_consumer
from pipelines.jetstream.pull import Puller, PullStalledError, delivery_of

logger = logging.getLogger(__name__)

_PULL_SECONDS = 5.0
_PAUSE_SECONDS = 5.0  # before a message is delivered again that could not be settled


class Intake:
    """The consumer that `wanted` describes on `stream`, pulled from until `closing`.

    A subclass settles each message in `_settle`. A message that it does not settle is delivered
    again: after a pause where it raised, at once where it was cancelled.
    """

    def __init__(
        self,
        connection: Client,
        *,
        stream: str,
        wanted: ConsumerConfig,
        ack_wait_seconds: float,
        max_concurrency: int,
        shutdown_seconds: float,
        closing: asyncio.Event,
    ) -> None:
        self.connection = connection  # the owner replaces one that ended for good
        self.durable = str(wanted.name)
        self.stopped = asyncio.Event()
        self._stream = stream
        self._wanted = wanted
        self._ack_wait_seconds = ack_wait_seconds
        self._max_concurrency = max_concurrency
        self._shutdown_seconds = shutdown_seconds
        self._closing = closing
        self._in_hand: dict[tuple[int, int], asyncio.Task[None]] = {}  # by Delivery.event
        self._log_is_writable = asyncio.Event()  # nothing is pulled while it is not set
        self._log_is_writable.set()
        self.stopped.set()

    async def prepare(self) -> None:
        """Make or update the durable consumer on the server."""
        await ensure_consumer(self.connection.jetstream(), self._stream, self._wanted)

    async def run(self) -> None:
        """Pull and handle until closing, then wait for what is in hand, or give it back."""
        self.stopped.clear()
        work = asyncio.create_task(self._pull_for_ever())
        stop = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({stop, work}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()  # it only ends by an error
            work.cancel()
            await asyncio.wait({work})
            if self._in_hand:
                await asyncio.wait(self._in_hand.values(), timeout=self._shutdown_seconds)
        finally:
            stop.cancel()
            work.cancel()
            in_hand = list(self._in_hand.values())
            for task in in_hand:
                task.cancel()
            await asyncio.gather(work, stop, *in_hand, return_exceptions=True)
            self.stopped.set()

    async def _pull_for_ever(self) -> None:
        while True:
            connection = self.connection
            puller = Puller(connection, self._stream, self.durable)
            try:
                await puller.open()
                await self._pull(puller)
            except (PullStalledError, nats.errors.Error, OSError) as error:
                logger.info("%s: pulling again in a second (%s)", self.durable, error)
            finally:
                with contextlib.suppress(nats.errors.Error, OSError):
                    for msg in await puller.close():
                        await self._give_back(msg)
            await self._recover(connection)

    async def _pull(self, puller: Puller) -> None:
        """Start a task for each message; ends by an error, after which an open request is void."""
        while True:
            await self._log_is_writable.wait()
            free = self._max_concurrency - len(self._in_hand)
            if free <= 0:
                await asyncio.wait(self._in_hand.values(), return_when=asyncio.FIRST_COMPLETED)
                continue
            async with aclosing(puller.pull(free, _PULL_SECONDS)) as arriving:
                async for msg in arriving:
                    self._take_in_hand(msg)

    def _take_in_hand(self, msg: Msg) -> None:
        event = delivery_of(msg).event
        if event in self._in_hand:
            # The server missed our heartbeats, in an outage. Whatever the running handler's answer
            # will be, it holds for this delivery too.
            logger.info("%s: message %s came again while in hand", self.durable, event[0])
            return
        task = asyncio.create_task(self._process(msg))
        self._in_hand[event] = task
        task.add_done_callback(lambda _: self._in_hand.pop(event))

    async def _recover(self, connection: Client) -> None:
        """Wait for a connection that answers, and see to it that the consumer exists."""
        await asyncio.sleep(1)
        if connection.is_connected:
            try:
                await connection.rtt(2)
            except (nats.errors.Error, OSError):  # nobody reads any more, whatever it says
                await connection.force_reconnect()
        while not self.connection.is_connected:  # noqa: ASYNC110  (nats-py has no event for it)
            await asyncio.sleep(0.1)
        try:
            await self.prepare()
        except (*PUBLISH_ERRORS, StreamError) as error:
            logger.warning("%s could not be looked at: %s", self.durable, error)

    async def _process(self, msg: Msg) -> None:
        """Settle one message; whatever goes wrong here, it is not lost."""
        beat = asyncio.create_task(self._keep_in_progress(msg))
        try:
            await self._settle(msg)
        except asyncio.CancelledError:
            await self._give_back(msg)
            raise
        except PUBLISH_ERRORS as error:
            logger.info("%s: a message will be delivered again (%s)", self.durable, error)
        except Exception:
            logger.exception("%s: a message will be delivered again", self.durable)
            await self._give_back(msg, _PAUSE_SECONDS)
        finally:
            beat.cancel()

    async def _settle(self, msg: Msg) -> None:
        """Answer the server about one message, or raise."""
        raise NotImplementedError

    async def _keep_in_progress(self, msg: Msg) -> None:
        while True:
            await asyncio.sleep(self._ack_wait_seconds / 3)
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._answer(msg, b"+WPI")

    async def _give_back(self, msg: Msg, delay_seconds: float = 0) -> None:
        """Let the server deliver the message again soon; after ack_wait it does so by itself."""
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._answer(msg, nak(delay_seconds))

    async def _answer(self, msg: Msg, answer: bytes) -> None:
        # Not by msg.ack(): the message may have come over a connection that has ended since.
        await self.connection.publish(msg.reply, answer)


def nak(delay_seconds: float) -> bytes:
    """The answer that gives a message back, to be delivered again after a delay."""
    return b'-NAK {"delay": %d}' % (delay_seconds * 1e9) if delay_seconds else b"-NAK"
