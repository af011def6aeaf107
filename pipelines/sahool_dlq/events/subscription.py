"""One durable consumer at work: pull, handle, settle.

For every event exactly one of these happens: it is acknowledged after its handler succeeded; it is
given back with a delay; it is acknowledged after the server acknowledged its dead letter; or the
process dies and the server delivers it again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy

from sahool_dlq.deadletter.headers import ADDRESSEE, Headers, is_for_another, value_of
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.subjects import event_type_of
from sahool_dlq.events.acknowledgements import nak
from sahool_dlq.events.attempts import AttemptLog, Attempts
from sahool_dlq.events.closing import Closing
from sahool_dlq.events.config import ConsumerContext, NATSConsumerConfig
from sahool_dlq.events.counters import Counters
from sahool_dlq.events.dead_letter_limit import DeadLetterLimit
from sahool_dlq.events.delivered import context_of, span_of
from sahool_dlq.events.failure import (
    EVENT_REMOVED,
    crash_loop,
    dead_letter_fields,
    parse_body,
)
from sahool_dlq.events.intake import Intake
from sahool_dlq.events.letter_writer import DeadLetterWriter, Tell
from sahool_dlq.events.outbox import (
    PUBLISH_ERRORS,
    tell_redrive_success,
)
from sahool_dlq.events.place import pulled
from sahool_dlq.events.policy import SUSPECT, decide, is_crash_loop
from sahool_dlq.events.results import DeadLetter, HandlerResult, ProcessingResult, Retry
from sahool_dlq.events.service_log import log_retry, log_start
from sahool_dlq.events.waiting import WaitingEvents
from sahool_dlq.jetstream.headers import every_header
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.jetstream.stored import is_stored
from sahool_dlq.tracing import fail_span, traced

logger = logging.getLogger(__name__)

Handler = Callable[[ConsumerContext], Awaitable[HandlerResult]]

_NEARLY_FULL = 0.8  # of max_ack_pending


class Subscription(Intake):
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
        closing: Closing,
        tell: Tell,
    ) -> None:
        super().__init__(
            connection,
            stream=stream,
            wanted=pulled(
                durable,
                config.ack_wait_seconds,
                is_durable=config.durable,
                deliver_policy=DeliverPolicy(config.deliver_policy or "all"),
                opt_start_seq=config.opt_start_seq,
                opt_start_time=config.opt_start_time,
                filter_subject=subject,
                max_ack_pending=config.max_ack_pending,
                inactive_threshold=None if config.durable else 300,
            ),
            ack_wait_seconds=config.ack_wait_seconds,
            max_concurrency=config.max_concurrency,
            closing=closing,
            priority_group=config.priority_group,
            must_start_there=config.deliver_policy is not None,
        )
        self.counters = Counters()
        self.started_at = datetime.now(UTC)
        self.ack_pending = 0  # of the durable consumer, when the server was last asked
        self._subject = subject
        self._handler = handler
        self._config = config
        self._rng = rng
        self._tell = tell
        self._log = AttemptLog(config.subjects, stream, durable)
        self._retries = WaitingEvents()
        self._letters = DeadLetterWriter(
            durable, self.counters, closing, self._log_is_writable, tell
        )
        self._suspects = asyncio.Lock()
        self._limit = DeadLetterLimit(durable, config)

    async def prepare(self) -> None:
        """Create or update the durable consumer on the server, and find the stream of attempts."""
        await super().prepare()
        await self._log.open(self.connection)

    async def run(self) -> None:
        """Work until closing."""
        log_start(self._config.name, self._stream, self.durable, self._subject)
        await super().run()

    async def check_ack_pending(self) -> None:
        """Report when so many retries wait that the server soon delivers no more events."""
        info = await self.connection.jetstream().consumer_info(self._stream, self.durable)
        self.ack_pending = pending = info.num_ack_pending or 0
        most = self._config.max_ack_pending
        if pending >= most * _NEARLY_FULL:
            self._tell(
                "ack_pending",
                f"{self.durable}: {pending} events wait for a retry or an acknowledgement; at"
                f" {most} the server stops delivering: find out why they fail, or raise"
                f" max_ack_pending.",
            )

    async def dead_letter_removed(self) -> None:
        """Dead-letter events that their stream removed while they waited here for a retry.

        An overdue retry may only be late, or be with another process: the stream and the attempts
        show which. Raises one of PUBLISH_ERRORS if they cannot be read.
        """
        if not self._log.is_kept:
            return
        for retry in self._retries.overdue({*self._running, *self._waiting}):
            msg, delivery, attempts = retry.msg, retry.delivery, retry.attempts
            if not await self._log.is_latest(self.connection, delivery):
                self._retries.forget(delivery)  # another process took it
                continue
            event = delivery.sequence, delivery.timestamp_ns
            if await is_stored(self.connection, self._stream, *event):
                continue
            if not retry.is_gone:
                retry.is_gone = True  # check again: another process may be taking it now
                continue
            config = self._config.in_force(event_type_of(msg.subject))
            headers = every_header(msg.headers)
            await self._write_dead_letter(msg, delivery, headers, EVENT_REMOVED, config, attempts)

    def _tell_rewound(self, what: str) -> None:
        self._tell("consumer_rewound", what)

    @traced(span_of)
    async def _settle(self, msg: Msg, delivery: Delivery) -> None:
        headers = every_header(msg.headers)
        if is_for_another(headers, consumer_address(delivery.stream, delivery.consumer)):
            self.counters.skipped += 1
            addressee = value_of(headers, ADDRESSEE)
            logger.info("Skipped %s of %s: a redrive for %s", msg.subject, delivery, addressee)
            self._acknowledge(msg)
            return
        if delivery.delivery_count == 1:
            self._retries.forget(delivery)  # of an earlier life of the consumer
            await self._attempt(msg, delivery, headers, None)
            return
        own = self._retries.attempts(delivery)
        attempts = await self._log.before(self.connection, delivery, own)
        most = self._config.most_retries(event_type_of(msg.subject))
        if is_crash_loop(attempts.begun_count, most):
            await self._dead_letter(
                msg, delivery, headers, crash_loop(attempts), self._config, attempts
            )
            return
        if attempts.unfinished_count < SUSPECT:
            await self._attempt(msg, delivery, headers, attempts)
            return
        try:
            async with asyncio.timeout(self._ack_wait_seconds):
                await self._suspects.acquire()
        except TimeoutError:  # the running one may never end: leave the slot to others
            await self._give_back(msg, self._ack_wait_seconds)
            return
        try:
            if self._closing.has_begun:  # while it waited
                await self._give_back(msg)
            else:
                await self._attempt(msg, delivery, headers, attempts)
        finally:
            self._suspects.release()

    async def _attempt(
        self, msg: Msg, delivery: Delivery, headers: Headers, attempts: Attempts | None
    ) -> None:
        """Call the handler, and act on its result.

        `attempts` are the calls before; None for an event without an earlier delivery.
        """
        config = self._config.in_force(event_type_of(msg.subject))
        attempt = attempts.failed_count if attempts else 0
        began_at = datetime.now(UTC)
        try:
            if attempts is not None:
                await self._log.begin(self.connection, delivery, attempts)
            result = await self._call(msg, delivery, headers, attempt, config.max_retries)
        except (asyncio.CancelledError, *PUBLISH_ERRORS):
            if attempts is not None:  # the call was interrupted or not made, and must be made
                attempts.begun_count -= 1
                await self._tell_attempts(delivery, attempts)
            raise
        if isinstance(result, (Retry, DeadLetter)) and result.error is not None:
            config = self._config.in_force(event_type_of(msg.subject), result.error)
        match decide(result, attempt, config, self._rng):
            case None:
                await self._succeeded(msg, delivery, headers)
                await self._tell_over(delivery, attempts)
            case Retry() as retry:
                attempts = attempts or Attempts(began_at, delivery.delivery_count, 1)
                attempts.add(datetime.now(UTC), retry.error, retry.reason)
                self._retries.keep(msg, delivery, attempts, retry.delay_seconds or 0)
                self.counters.retried += 1
                log_retry(self._config.name, msg, delivery, attempts, retry.delay_seconds or 0)
                await self._log.write(self.connection, delivery, attempts)
                await self._answer(msg, nak(retry.delay_seconds or 0))
            case DeadLetter() as verdict:
                attempts = attempts or Attempts(began_at, delivery.delivery_count, 1)
                attempts.add(datetime.now(UTC), verdict.error, verdict.reason)
                await self._dead_letter(msg, delivery, headers, verdict, config, attempts)

    async def _call(
        self,
        msg: Msg,
        delivery: Delivery,
        headers: Headers,
        attempt: int,
        max_retries: int,
    ) -> HandlerResult:
        """What the handler says; an exception that it raises is a Retry."""
        context = context_of(msg, delivery, headers, attempt, max_retries)
        began = time.perf_counter()
        seconds = self._config.handler_timeout_seconds
        result: HandlerResult
        try:
            said: object = await self._outcome(self._handler(context), seconds)
            if not isinstance(said, HandlerResult):
                raise TypeError(f"The handler returned {said!r}, not a ProcessingResult.")
            result = said
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  (whatever a handler raises is its failure)
            result = Retry(error=error)
            fail_span(error)
        took = time.perf_counter() - began
        if result is not ProcessingResult.SUCCESS and self._is_cutting_off:
            raise asyncio.CancelledError  # the handler's reaction to the shutdown is no failure
        self.counters.count_call(took)
        return result

    async def _succeeded(self, msg: Msg, delivery: Delivery, headers: Headers) -> None:
        """Acknowledge; a redrive's success is published first, if possible."""
        await tell_redrive_success(self.connection, delivery, headers, self._config)
        self._retries.forget(delivery)
        self.counters.succeeded += 1
        self._acknowledge(msg)
        self._settled(is_dead=False)

    async def _dead_letter(
        self,
        msg: Msg,
        delivery: Delivery,
        headers: Headers,
        verdict: DeadLetter,
        config: NATSConsumerConfig,
        attempts: Attempts,
    ) -> None:
        """Acknowledge an event once its dead letter is written; else give it back."""
        if not await self._write_dead_letter(msg, delivery, headers, verdict, config, attempts):
            await self._tell_attempts(delivery, attempts)
            await self._give_back(msg)
            return
        await self._tell_over(delivery, attempts)
        if config.dlq_enabled:
            self._acknowledge(msg)
            self._settled(is_dead=True)
        else:
            await self._answer(msg, b"+TERM " + verdict.dlq_reason.encode())

    async def _write_dead_letter(
        self,
        msg: Msg,
        delivery: Delivery,
        headers: Headers,
        verdict: DeadLetter,
        config: NATSConsumerConfig,
        attempts: Attempts,
    ) -> bool:
        """Publish the dead letter until the server has it; False if the service ends before."""
        is_json, body = parse_body(msg.data)
        fields = dead_letter_fields(
            subject=msg.subject,
            headers=headers,
            body=body,
            delivery=delivery,
            config=config,
            handler=getattr(self._handler, "__qualname__", type(self._handler).__name__),
            attempts=attempts,
            verdict=verdict,
            now=datetime.now(UTC),
        )
        is_written = await self._letters.write(
            lambda: self.connection, fields, msg.data, is_json=is_json, config=config
        )
        if is_written:
            self._retries.forget(delivery)
        return is_written

    async def _tell_attempts(self, delivery: Delivery, attempts: Attempts) -> None:
        """Record the attempts for the next process, if there is a connection."""
        with suppress(*PUBLISH_ERRORS):
            await self._log.write(self.connection, delivery, attempts)

    async def _tell_over(self, delivery: Delivery, attempts: Attempts | None) -> None:
        """Record that the event is done, so that nobody counts its calls again if the consumer is
        reset or created again.
        """
        if attempts is not None and delivery.delivery_count > 1:
            attempts.is_over = True
            await self._tell_attempts(delivery, attempts)

    def _settled(self, *, is_dead: bool) -> None:
        """Stop the consumer if nearly everything is dead-lettered."""
        error = self._limit.exceeded_by(is_dead=is_dead)
        if error is not None and self.error is None:
            self.error = error
            self._tell("dead_letter_limit", str(error))
            self._closing.set()
