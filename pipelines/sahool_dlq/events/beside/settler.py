"""The life of one delivered event that other code pulls: a nats-py loop or a framework.

`begin` is called before its handler, `end` with the result. For every event exactly one of these
happens, as in `events/subscription.py`: it is acknowledged after its handler succeeded; it is given
back with a delay; it is acknowledged after the server has its dead letter; or the process dies and
the server delivers it again.
"""

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.deadletter.headers import ADDRESSEE, Headers, is_for_another, value_of
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.subjects import event_type_of
from sahool_dlq.events.attempts import AttemptLog, Attempts
from sahool_dlq.events.beside.letters import Letter, Letters, detail
from sahool_dlq.events.beside.terms import Terms
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.counters import Counters
from sahool_dlq.events.failure import crash_loop, dead_letter_fields, parse_body
from sahool_dlq.events.outbox import PUBLISH_ERRORS, tell_redrive_success
from sahool_dlq.events.policy import SUSPECT, decide, is_crash_loop
from sahool_dlq.events.results import DeadLetter, HandlerResult, Retry
from sahool_dlq.events.service_log import log_retry
from sahool_dlq.events.waiting import WaitingEvents
from sahool_dlq.jetstream.headers import every_header
from sahool_dlq.jetstream.pull import Delivery, delivery_of
from sahool_dlq.tracing import traceparent

__all__ = ["PAUSE_SECONDS", "Call", "Settler", "client_of"]

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0  # before an unsettled event is delivered again
_ACK_SECONDS = 5.0


@dataclass(slots=True)
class Call:
    """An event whose handler is running."""

    settler: "Settler"
    msg: Msg
    delivery: Delivery
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
        """Let the event be delivered again at once: an interrupted call is no failure."""
        await self.settler.give_back(self)

    async def skip(self) -> None:
        """Do not acknowledge the event, which was not called for; see `leave`."""
        await self.settler.uncount(self)

    def leave(self) -> None:
        """Do not acknowledge the event: the server delivers it again later."""
        self.settler.stop(self)


class Settler:
    """Acknowledges, retries and dead-letters the events of one durable consumer."""

    def __init__(self, config: NATSConsumerConfig, terms: Terms, log: AttemptLog) -> None:
        self.counters = Counters()
        self._config = config
        self._terms = terms
        self._log = log
        self._rng = random.Random()  # noqa: S311  (jitter, not a secret)
        self._retries = WaitingEvents()
        self._letters = Letters(log, self.counters)
        self._suspects = asyncio.Lock()

    async def begin(self, msg: Msg, handler: str) -> Call | None:
        """Start to handle an event, before its handler is called; None if it must not be called.

        Then the event is done: it was a redrive for another consumer, it killed its process too
        often, or the log cannot be written, so that it is delivered again after a pause.
        """
        delivery, headers = delivery_of(msg), every_header(msg.headers)
        if is_for_another(headers, consumer_address(delivery.stream, delivery.consumer)):
            self.counters.skipped += 1
            addressee = value_of(headers, ADDRESSEE)
            logger.info("Skipped %s of %s: a redrive for %s", msg.subject, delivery, addressee)
            await msg.ack()
            return None
        call = Call(self, msg, delivery, headers, None, handler)
        while True:
            try:
                return call if await self._may_call(call) else None
            except PUBLISH_ERRORS as error:
                logger.warning(
                    "Event %d on %s waits: the log cannot be written or read (%s)",
                    *(delivery.sequence, msg.subject, detail(error)),
                )
                if not await self._wait_in_hand(call):
                    await self._put_off(call)
                    return None

    async def end(self, call: Call, result: HandlerResult) -> None:
        """Act on the handler's result.

        If the handler acknowledged the event itself, that stays; a failure after that is logged.
        """
        self.stop(call)
        self.counters.count_call((datetime.now(UTC) - call.began_at).total_seconds())
        msg, attempts = call.msg, call.attempts
        event_type = event_type_of(msg.subject)
        error = result.error if isinstance(result, (Retry, DeadLetter)) else None
        config = self._config.in_force(event_type, error)
        verdict = decide(result, attempts.failed_count if attempts else 0, config, self._rng)
        if msg.is_acked:
            self._retries.forget(call.delivery)
            if verdict is not None:
                logger.error(
                    "Event %d on %s was acknowledged by its handler, which then failed: let "
                    "the library acknowledge.",
                    *(call.delivery.sequence, msg.subject),
                    exc_info=error,
                )
            return
        if verdict is None:
            await self._succeeded(call)
        elif isinstance(verdict, Retry) and not self._terms.is_last(call.delivery):
            await self._retry(call, verdict)
        else:
            if isinstance(verdict, Retry):
                verdict = DeadLetter(verdict.reason, verdict.error, "max_retries_exceeded")
            await self.give_up(call, verdict, config)

    async def give_back(self, call: Call) -> None:
        """Let an event be delivered again at once, as if there was no call."""
        await self.uncount(call)
        if not call.msg.is_acked:
            await call.msg.nak()

    async def uncount(self, call: Call) -> None:
        """End a call without counting it."""
        self.stop(call)
        if call.attempts is not None and not call.msg.is_acked:
            call.attempts.begun_count -= 1
            await self._tell(client_of(call.msg), call.delivery, call.attempts)

    async def give_up(self, call: Call, verdict: DeadLetter, config: NATSConsumerConfig) -> bool:
        """Acknowledge an event once the server has its dead letter; else give it back (False)."""
        attempts = call.attempts or Attempts(call.began_at, call.delivery.delivery_count, 1)
        attempts.add(datetime.now(UTC), verdict.error, verdict.reason)
        return await self._dead_letter(call, verdict, config, attempts)

    async def attempts_of(self, msg: Msg) -> Attempts | None:
        """The recorded earlier calls, or one per delivery; None for the first delivery."""
        delivery = delivery_of(msg)
        if delivery.delivery_count == 1:
            return None
        attempts = await self._log.before(client_of(msg), delivery, None)
        attempts.delivery_count = delivery.delivery_count
        attempts.begun_count = max(attempts.begun_count, delivery.delivery_count)
        attempts.failed_count = max(attempts.failed_count, delivery.delivery_count - 1)
        return attempts

    async def _may_call(self, call: Call) -> bool:
        """Whether the handler may be called; raises PUBLISH_ERRORS if that is unknown."""
        msg, delivery, client = call.msg, call.delivery, client_of(call.msg)
        if held := self._letters.of(delivery):  # its handler was called often enough
            await self._letters.write(client, held)
            await self._acknowledge(call, held)
            return False
        if delivery.delivery_count == 1:
            self._retries.forget(delivery)  # of an earlier life of the consumer
        else:
            own = self._retries.attempts(delivery)
            attempts = await self._log.before(client, delivery, own)
            call.attempts = attempts
            most = self._config.most_retries(event_type_of(msg.subject))
            if is_crash_loop(attempts.begun_count, most):
                await self._dead_letter(call, crash_loop(attempts), self._config, attempts)
                return False
            if attempts.unfinished_count >= SUSPECT and not await self._is_next_suspect(call):
                return False
            try:
                await self._log.begin(client, delivery, attempts)
            except BaseException:  # its caller may cancel it meanwhile
                attempts.begun_count -= 1
                self.stop(call)
                raise
        call.began_at = datetime.now(UTC)
        call.in_progress = asyncio.create_task(self._keep_in_progress(msg))
        return True

    async def _is_next_suspect(self, call: Call) -> bool:
        """Wait until no other event runs that may kill the process.

        So other events are not blamed for the crash.
        """
        try:
            async with asyncio.timeout(self._terms.ack_wait_seconds / 2):
                call.is_suspect = await self._suspects.acquire()
        except TimeoutError:
            await self._put_off(call)
        return call.is_suspect

    def stop(self, call: Call) -> None:
        """The call has ended."""
        if call.in_progress is not None:
            call.in_progress.cancel()
            call.in_progress = None
        if call.is_suspect:
            call.is_suspect = False
            self._suspects.release()

    async def _keep_in_progress(self, msg: Msg) -> None:
        while not msg.is_acked and not client_of(msg).is_closed:
            await asyncio.sleep(self._terms.ack_wait_seconds / 3)
            with contextlib.suppress(*PUBLISH_ERRORS):
                await msg.in_progress()

    async def _succeeded(self, call: Call) -> None:
        """Acknowledge; a redrive's success is published first, if possible."""
        msg, client = call.msg, client_of(call.msg)
        await tell_redrive_success(client, call.delivery, call.headers, self._config)
        self._retries.forget(call.delivery)
        self.counters.succeeded += 1
        await msg.ack()
        await self._tell_over(client, call.delivery, call.attempts)

    async def _retry(self, call: Call, retry: Retry) -> None:
        """Give the event back with a delay, and record its calls."""
        msg, delivery = call.msg, call.delivery
        attempts = call.attempts or Attempts(call.began_at, delivery.delivery_count, 1)
        attempts.add(datetime.now(UTC), retry.error, retry.reason)
        delay = retry.delay_seconds or 0
        self._retries.keep(msg, delivery, attempts, delay)
        self.counters.retried += 1
        log_retry(self._config.name, msg, delivery, attempts, delay)
        await self._tell(client_of(msg), delivery, attempts)
        await msg.nak(delay)

    async def _dead_letter(
        self, call: Call, verdict: DeadLetter, config: NATSConsumerConfig, attempts: Attempts
    ) -> bool:
        msg, delivery = call.msg, call.delivery
        call.attempts = attempts
        is_json, body = parse_body(msg.data)
        fields = dead_letter_fields(
            subject=msg.subject,
            headers=call.headers,
            body=body,
            delivery=delivery,
            config=config,
            handler=call.handler,
            attempts=attempts,
            verdict=verdict,
            now=datetime.now(UTC),
        )
        fields["traceparent"] = traceparent(otherwise=fields["traceparent"])
        if not config.dlq_enabled:
            logger.error(
                "Event %s is given up (%s): %s",
                *(fields["event_id"], verdict.dlq_reason, fields["error_message"]),
            )
            await msg.term()
            return True
        service = config.name if config.dlq_subject_per_service else None
        subject = config.subjects.dead_letter(event_type_of(msg.subject), service)
        held = self._letters.hold(Letter(subject, fields, msg.data, is_json, attempts, delivery))
        while True:
            try:
                await self._letters.write(client_of(msg), held)
            except PUBLISH_ERRORS as error:
                logger.error(
                    "The dead letter of event %s cannot be written (%s): it is not "
                    "acknowledged, and will be delivered again.",
                    *(fields["event_id"], detail(error)),
                )
                if not await self._wait_in_hand(call):
                    await self._put_off(call)
                    return False
            else:
                break
        await self._acknowledge(call, held)
        return True

    async def _acknowledge(self, call: Call, held: Letter) -> None:
        """Acknowledge an event whose dead letter is written; else that is done at its next
        delivery.
        """
        try:
            await call.msg.ack_sync(timeout=_ACK_SECONDS)
        except PUBLISH_ERRORS as error:
            logger.info(
                "Event %d will be delivered again: %s", held.delivery.sequence, detail(error)
            )
            return
        self._letters.forget(held)
        self._retries.forget(held.delivery)
        await self._tell_over(client_of(call.msg), call.delivery, held.attempts)

    async def _tell_over(
        self, client: Client, delivery: Delivery, attempts: Attempts | None
    ) -> None:
        """Record that the event is done, so that nobody counts its calls again if the consumer is
        reset or created again.
        """
        if attempts is not None:
            attempts.is_over = True
            await self._tell(client, delivery, attempts)

    async def _tell(self, client: Client, delivery: Delivery, attempts: Attempts) -> None:
        """Record the calls of the event for the next process; this process also remembers them."""
        with contextlib.suppress(*PUBLISH_ERRORS):
            await self._log.write(client, delivery, attempts)

    async def _wait_in_hand(self, call: Call) -> bool:
        """Wait a moment with an event that the server would not deliver again."""
        if not self._terms.is_last(call.delivery):
            return False
        with contextlib.suppress(*PUBLISH_ERRORS):
            await call.msg.in_progress()
        await asyncio.sleep(min(PAUSE_SECONDS, self._terms.ack_wait_seconds / 3))
        return True

    async def _put_off(self, call: Call) -> None:
        """Let an event be delivered again after a pause, without counting a call."""
        delivery = call.delivery
        attempts = call.attempts or Attempts(call.began_at)
        attempts.delivery_count = delivery.delivery_count
        self._retries.keep(call.msg, delivery, attempts, PAUSE_SECONDS)
        await call.msg.nak(PAUSE_SECONDS)


def client_of(msg: Msg) -> Client:
    """The connection of a message."""
    return msg._client  # noqa: SLF001  (nats-py has no public name for it)
