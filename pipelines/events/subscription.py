"""One durable consumer at work: pull, handle, settle.

For every event exactly one of these happens: it is acknowledged after its handler succeeded; it is
given back with a delay; it is acknowledged after the server acknowledged its dead letter; or the
process goes away and the server delivers it again.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from pipelines.deadletter.envelope import encode_case_event
from pipelines.deadletter.ids import consumer_address, is_uuid
from pipelines.deadletter.message import time_of_ns
from pipelines.deadletter.subjects import event_type_of, subject_token
from pipelines.errors import StreamError
from pipelines.events.config import ConsumerContext, NATSConsumerConfig, ProcessingResult
from pipelines.events.failure import REDRIVE_ATTEMPT, Attempts, dead_letter_fields, parse_body
from pipelines.events.outbox import (
    PUBLISH_ERRORS,
    publish_dead_letter,
    publish_redrive_success,
    publish_until_acknowledged,
)
from pipelines.events.policy import (
    Acknowledge,
    DeadLetter,
    Outcome,
    Retry,
    decide,
    is_crash_loop,
)
from pipelines.jetstream.consumers import ensure_consumer
from pipelines.jetstream.pull import Delivery, Puller, PullStalledError, delivery_of

logger = logging.getLogger(__name__)

Handler = Callable[[ConsumerContext], Awaitable[ProcessingResult]]

_PULL_SECONDS = 5.0
_PAUSE_SECONDS = 5.0  # before an event is delivered again that could not be settled
_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class Counters:
    """What a subscription did since it started."""

    handled: int = 0  # handler calls that ended
    succeeded: int = 0
    retried: int = 0
    dead_lettered: int = 0
    skipped: int = 0  # redrives addressed to another consumer


class Subscription:
    """The durable consumer `durable` on `stream`, filtered on `subject`, feeding `handler`."""

    def __init__(
        self,
        connection: Client,
        *,
        stream: str,
        durable: str,
        subject: str,
        handler: Handler,
        config: NATSConsumerConfig,
        rng: random.Random,
        closing: asyncio.Event,
    ) -> None:
        self.connection = connection  # the consumer replaces one that ended for good
        self.durable = durable
        self.counters = Counters()
        self.started_at = datetime.now(UTC)
        self.stopped = asyncio.Event()
        self._stream = stream
        self._subject = subject
        self._handler = handler
        self._config = config
        self._rng = rng
        self._closing = closing
        self._attempts: dict[tuple[int, int], Attempts] = {}  # by Delivery.event
        self._in_hand: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._log_is_writable = asyncio.Event()
        self._log_is_writable.set()
        self.stopped.set()

    async def prepare(self) -> None:
        """Make or update the durable consumer on the server."""
        config = self._config
        wanted = ConsumerConfig(
            durable_name=self.durable if config.durable else None,
            name=self.durable,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            filter_subject=self._subject,
            ack_wait=config.ack_wait_seconds,
            max_deliver=-1,  # the library counts; an exhausted message would be unreachable
            max_ack_pending=config.max_ack_pending,
            inactive_threshold=None if config.durable else 300,
        )
        await ensure_consumer(self.connection.jetstream(), self._stream, wanted)

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
                await asyncio.wait(self._in_hand.values(), timeout=self._config.shutdown_seconds)
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
        """Start a task for each event; ends by an error, after which an open request is void."""
        while True:
            await self._log_is_writable.wait()
            free = self._config.max_concurrency - len(self._in_hand)
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
            logger.info("%s: event %s came again while in hand", self.durable, event[0])
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
        """Handle one event and settle it; whatever goes wrong here, the event is not lost."""
        beat = asyncio.create_task(self._keep_in_progress(msg))
        try:
            await self._settle(msg)
        except asyncio.CancelledError:
            await self._give_back(msg)
            raise
        except PUBLISH_ERRORS as error:
            logger.info("%s: an event will be delivered again (%s)", self.durable, error)
        except Exception:
            logger.exception("%s: an event will be delivered again", self.durable)
            await self._give_back(msg, _PAUSE_SECONDS)
        finally:
            beat.cancel()

    async def _settle(self, msg: Msg) -> None:
        delivery = delivery_of(msg)
        headers = {str(key): str(value) for key, value in (msg.headers or {}).items()}
        addressee = headers.get("Dlq-Redrive-For")
        if addressee and addressee != consumer_address(delivery.stream, delivery.consumer):
            self.counters.skipped += 1
            await self._answer(msg, b"+ACK")
            return
        if is_crash_loop(delivery.delivery_count, self._config):
            await self._dead_letter(msg, delivery, headers, None, "crash_loop")
            return
        attempt = delivery.delivery_count - 1
        outcome = await self._call(msg, delivery, headers, attempt)
        self.counters.handled += 1
        match decide(outcome, attempt, self._config, self._rng):
            case Acknowledge():
                await self._succeeded(msg, delivery, headers)
            case Retry(delay_seconds):
                self.counters.retried += 1
                await self._answer(msg, _nak(delay_seconds))
            case DeadLetter(reason):
                await self._dead_letter(msg, delivery, headers, outcome.error, reason)

    async def _call(
        self, msg: Msg, delivery: Delivery, headers: dict[str, str], attempt: int
    ) -> Outcome:
        context = ConsumerContext(
            subject=msg.subject,
            data=msg.data,
            headers=headers,
            attempt=attempt,
            max_retries=self._config.max_retries,
            stream=delivery.stream,
            sequence=delivery.sequence,
            published_at=time_of_ns(delivery.timestamp_ns),
            redrive_of=headers.get("Dlq-Redrive-Of"),
        )
        started_at = datetime.now(UTC)
        timer = asyncio.timeout(self._config.handler_timeout_seconds)
        try:
            async with timer:
                result: object = await self._handler(context)
            if isinstance(result, ProcessingResult):
                outcome = Outcome(result)
            else:
                error = TypeError(f"The handler returned {result!r}, not a ProcessingResult.")
                outcome = Outcome(ProcessingResult.RETRY, error)
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  (whatever a handler raises is its failure)
            if timer.expired() and isinstance(error, TimeoutError) and not error.args:
                error.args = (
                    f"The handler took longer than {self._config.handler_timeout_seconds} s.",
                )
            outcome = Outcome(ProcessingResult.RETRY, error)
        if outcome.result is not ProcessingResult.SUCCESS and _is_being_cancelled():
            raise asyncio.CancelledError  # closing: what the handler makes of it is no failure
        if outcome.result is not ProcessingResult.SUCCESS:
            if len(self._attempts) >= _MOST_REMEMBERED:
                self._attempts.pop(next(iter(self._attempts)))
            known = self._attempts.setdefault(delivery.event, Attempts(started_at))
            known.add(datetime.now(UTC), outcome.error)
        return outcome

    async def _succeeded(self, msg: Msg, delivery: Delivery, headers: dict[str, str]) -> None:
        """Acknowledge; a redrive's success is published first.

        If that keeps failing the event is acknowledged all the same: to run a handler again that
        succeeded would be worse than an outcome that stays unknown.
        """
        root, redrive = headers.get("Dlq-Redrive-Of", ""), headers.get("Dlq-Redrive-Id", "")
        attempt = headers.get("Dlq-Redrive-Attempt", "")
        if is_uuid(root) and is_uuid(redrive) and REDRIVE_ATTEMPT.match(attempt):
            body = encode_case_event(
                failure_id=root,
                redrive_id=redrive,
                attempt=int(attempt),
                consumer=consumer_address(delivery.stream, delivery.consumer),
                actor=self._config.name,
                at=datetime.now(UTC),
            )
            subject = self._config.subjects.redrive("succeeded")
            await publish_redrive_success(self.connection, subject, body, redrive)
        self._attempts.pop(delivery.event, None)
        self.counters.succeeded += 1
        await self._answer(msg, b"+ACK")

    async def _dead_letter(
        self,
        msg: Msg,
        delivery: Delivery,
        headers: dict[str, str],
        error: BaseException | None,
        reason: str,
    ) -> None:
        """Publish the dead letter until the server has it, then acknowledge the event."""
        now = datetime.now(UTC)
        attempts = self._attempts.get(delivery.event) or Attempts(now)
        is_json, body = parse_body(msg.data)
        fields = dead_letter_fields(
            subject=msg.subject,
            headers=headers,
            body=body,
            delivery=delivery,
            config=self._config,
            handler=getattr(self._handler, "__qualname__", type(self._handler).__name__),
            attempts=attempts,
            error=error,
            reason=reason,
            now=now,
        )
        if not self._config.dlq_enabled:
            logger.error("Event %s is given up (%s): %s", fields["event_id"], reason, error)
            self._attempts.pop(delivery.event, None)
            await self._answer(msg, b"+TERM " + reason.encode())
            return

        async def publish() -> None:
            subject = (
                f"{self._config.dlq_subject_prefix}.{subject_token(event_type_of(msg.subject))}"
            )
            try:
                await publish_dead_letter(self.connection, subject, fields, msg.data, is_json)
            except PUBLISH_ERRORS:
                self._log_is_writable.clear()
                raise

        what = f"The dead letter of event {fields['event_id']}"
        try:
            is_published = await publish_until_acknowledged(
                publish, what=what, give_up=self._closing
            )
        finally:
            self._log_is_writable.set()
        if not is_published:
            await self._give_back(msg)
            return
        self._attempts.pop(delivery.event, None)
        self.counters.dead_lettered += 1
        await self._answer(msg, b"+ACK")

    async def _keep_in_progress(self, msg: Msg) -> None:
        while True:
            await asyncio.sleep(self._config.ack_wait_seconds / 3)
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._answer(msg, b"+WPI")

    async def _give_back(self, msg: Msg, delay_seconds: float = 0) -> None:
        """Let the server deliver the event again soon; after ack_wait it does so by itself."""
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._answer(msg, _nak(delay_seconds))

    async def _answer(self, msg: Msg, answer: bytes) -> None:
        # Not by msg.ack(): the event may have come over a connection that has ended since.
        await self.connection.publish(msg.reply, answer)


def _nak(delay_seconds: float) -> bytes:
    return b'-NAK {"delay": %d}' % (delay_seconds * 1e9) if delay_seconds else b"-NAK"


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
