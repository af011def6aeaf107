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
from nats.js.errors import BadRequestError
from nats.js.errors import Error as JetStreamError

from pipelines.deadletter.envelope import encode_case_event
from pipelines.deadletter.ids import consumer_address
from pipelines.deadletter.message import time_of_ns
from pipelines.deadletter.subjects import event_type_of, subject_token
from pipelines.events.config import ConsumerContext, NATSConsumerConfig, ProcessingResult
from pipelines.events.failure import Attempts, dead_letter_fields, parse_body
from pipelines.events.outbox import PUBLISH_ERRORS, publish_dead_letter, publish_until_acknowledged
from pipelines.events.policy import (
    Acknowledge,
    DeadLetter,
    Outcome,
    Retry,
    decide,
    is_crash_loop,
)
from pipelines.jetstream.pull import Delivery, Puller, PullStalledError, delivery_of

logger = logging.getLogger(__name__)

Handler = Callable[[ConsumerContext], Awaitable[ProcessingResult]]

_PULL_SECONDS = 5.0
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
        self.durable = durable
        self.counters = Counters()
        self.started_at = datetime.now(UTC)
        self.stopped = asyncio.Event()
        self._connection = connection
        self._stream = stream
        self._subject = subject
        self._handler = handler
        self._config = config
        self._rng = rng
        self._closing = closing
        self._attempts: dict[int, Attempts] = {}
        self._in_hand: set[asyncio.Task[None]] = set()
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
        js = self._connection.jetstream()
        try:
            await js.add_consumer(self._stream, wanted)
        except BadRequestError as error:
            await js.consumer_info(self._stream, self.durable)  # raises where there is none
            logger.warning(
                "Consumer %s on %s keeps its older settings: %s",
                self.durable,
                self._stream,
                error.description,
            )

    async def run(self) -> None:
        """Pull and handle until closing, then wait for what is in hand, or give it back."""
        self.stopped.clear()
        puller = Puller(self._connection, self._stream, self.durable)
        try:
            await puller.open()
            stop = asyncio.create_task(self._closing.wait())
            work = asyncio.create_task(self._pull_for_ever(puller))
            await asyncio.wait({stop, work}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if work.done():
                work.result()  # it only ends by an error
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            if self._in_hand:
                await asyncio.wait(self._in_hand, timeout=self._config.shutdown_seconds)
        finally:
            for task in list(self._in_hand):
                task.cancel()
            await asyncio.gather(*self._in_hand, return_exceptions=True)
            with contextlib.suppress(nats.errors.Error):
                await puller.close()
            self.stopped.set()

    async def _pull_for_ever(self, puller: Puller) -> None:
        while True:
            await self._log_is_writable.wait()
            free = self._config.max_concurrency - len(self._in_hand)
            if free == 0:
                await asyncio.wait(self._in_hand, return_when=asyncio.FIRST_COMPLETED)
                continue
            try:
                async with aclosing(puller.pull(free, _PULL_SECONDS)) as arriving:
                    async for msg in arriving:
                        task = asyncio.create_task(self._process(msg))
                        self._in_hand.add(task)
                        task.add_done_callback(self._in_hand.discard)
            except (PullStalledError, nats.errors.Error, OSError) as error:
                logger.info("%s: pulling again in a second (%s)", self.durable, error)
                await asyncio.sleep(1)
                with contextlib.suppress(nats.errors.Error, JetStreamError, TimeoutError):
                    await self.prepare()

    async def _process(self, msg: Msg) -> None:
        """Handle one event and settle it; whatever goes wrong here, the event is not lost."""
        beat = asyncio.create_task(self._keep_in_progress(msg))
        try:
            await self._settle(msg)
        except asyncio.CancelledError:
            await _give_back(msg)
            raise
        except PUBLISH_ERRORS as error:
            logger.info("%s: an event will be delivered again (%s)", self.durable, error)
        except Exception:
            logger.exception("%s: an event will be delivered again", self.durable)
            await _give_back(msg)
        finally:
            beat.cancel()

    async def _settle(self, msg: Msg) -> None:
        delivery = delivery_of(msg)
        headers = {str(key): str(value) for key, value in (msg.headers or {}).items()}
        addressee = headers.get("Dlq-Redrive-For")
        if addressee and addressee != consumer_address(delivery.stream, delivery.consumer):
            self.counters.skipped += 1
            await msg.ack()
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
                await msg.nak(delay=delay_seconds)
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
        try:
            async with asyncio.timeout(self._config.handler_timeout_seconds):
                result: object = await self._handler(context)
            if isinstance(result, ProcessingResult):
                outcome = Outcome(result)
            else:
                error = TypeError(f"The handler returned {result!r}, not a ProcessingResult.")
                outcome = Outcome(ProcessingResult.RETRY, error)
        except Exception as error:  # noqa: BLE001  (whatever a handler raises is its failure)
            outcome = Outcome(ProcessingResult.RETRY, error)
        if outcome.result is not ProcessingResult.SUCCESS:
            if len(self._attempts) >= _MOST_REMEMBERED:
                self._attempts.pop(next(iter(self._attempts)))
            known = self._attempts.setdefault(delivery.sequence, Attempts(started_at))
            known.add(datetime.now(UTC), outcome.error)
        return outcome

    async def _succeeded(self, msg: Msg, delivery: Delivery, headers: dict[str, str]) -> None:
        """Acknowledge; a redrive's success is published first.

        If that keeps failing the event is acknowledged all the same: to run a handler again that
        succeeded would be worse than an outcome that stays unknown.
        """
        if "Dlq-Redrive-Of" in headers:
            with contextlib.suppress(*PUBLISH_ERRORS, ValueError):
                await self._publish_success(delivery, headers)
        self._attempts.pop(delivery.sequence, None)
        self.counters.succeeded += 1
        await msg.ack()

    async def _publish_success(self, delivery: Delivery, headers: dict[str, str]) -> None:
        redrive = headers.get("Dlq-Redrive-Id")
        body = encode_case_event(
            failure_id=headers["Dlq-Redrive-Of"],
            redrive_id=redrive,
            attempt=int(headers.get("Dlq-Redrive-Attempt", "")),
            consumer=consumer_address(delivery.stream, delivery.consumer),
            actor=self._config.name,
            at=datetime.now(UTC),
        )
        js = self._connection.jetstream()
        subject = self._config.subjects.redrive("succeeded")
        for pause in (0.1, 0.5, 0):
            try:
                # Not the redrive id alone: a redirected redrive may share the stream's ids.
                await js.publish(
                    subject, body, headers={"Nats-Msg-Id": f"{redrive}-succeeded"}, timeout=2
                )
            except PUBLISH_ERRORS as error:
                logger.warning("The success of redrive %s could not be told: %s", redrive, error)
                await asyncio.sleep(pause)
            else:
                return

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
        attempts = self._attempts.get(delivery.sequence) or Attempts(now)
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
            await self._connection.publish(msg.reply, b"+TERM " + reason.encode())
            return

        async def publish() -> None:
            subject = (
                f"{self._config.dlq_subject_prefix}.{subject_token(event_type_of(msg.subject))}"
            )
            try:
                await publish_dead_letter(self._connection, subject, fields, msg.data, is_json)
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
            await _give_back(msg)
            return
        self._attempts.pop(delivery.sequence, None)
        self.counters.dead_lettered += 1
        await msg.ack()

    async def _keep_in_progress(self, msg: Msg) -> None:
        while True:
            await asyncio.sleep(self._config.ack_wait_seconds / 3)
            with contextlib.suppress(nats.errors.Error):
                await msg.in_progress()


async def _give_back(msg: Msg) -> None:
    """Let the server deliver the event again at once; it does so later by itself too."""
    with contextlib.suppress(nats.errors.Error, OSError):
        await msg.nak()
