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
from dataclasses import replace
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.deadletter.headers import ADDRESSEE, is_for_another, value_of
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.subjects import event_type_of
from sahool_dlq.events.attempts import AttemptLog, Attempts
from sahool_dlq.events.beside.in_hand import Call, InHand, client_of
from sahool_dlq.events.beside.letters import Letter, Letters, detail, finished
from sahool_dlq.events.beside.terms import Terms
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.counters import Counters
from sahool_dlq.events.failure import crash_loop
from sahool_dlq.events.outbox import PUBLISH_ERRORS, tell_redrive_success
from sahool_dlq.events.policy import SUSPECT, decide, is_crash_loop
from sahool_dlq.events.results import DeadLetter, HandlerResult, Retry
from sahool_dlq.events.service_log import log_retry
from sahool_dlq.events.waiting import WaitingEvents
from sahool_dlq.jetstream.headers import every_header
from sahool_dlq.jetstream.pull import Delivery, delivery_of

__all__ = ["PAUSE_SECONDS", "Settler"]

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0  # before an unsettled event is delivered again
_ACK_SECONDS = 5.0
_LAST_SECONDS = 10.0  # for the dead letter of an event that was cut off at its last delivery


class Settler:
    """Acknowledges, retries and dead-letters the events of one durable consumer."""

    def __init__(self, config: NATSConsumerConfig, terms: Terms, log: AttemptLog) -> None:
        self.counters = Counters()
        self._config = config
        self._in_hand = InHand(terms)
        self._log = log
        self._rng = random.Random()  # noqa: S311  (jitter, not a secret)
        self._retries = WaitingEvents()
        self._letters = Letters(log, self.counters)
        self._last: set[asyncio.Task[None]] = set()  # at work on events that do not come again

    @property
    def _terms(self) -> Terms:
        return self._in_hand.terms

    async def begin(self, msg: Msg, handler: str) -> Call | None:
        """Start to handle an event, before its handler is called; None if it must not be called.

        Then the event is settled: it was a redrive for another consumer, it killed its process too
        often, or the log cannot be written, so that it comes again after a pause. Or it is in hand
        already, and its answer is for this delivery too.
        """
        delivery, headers = delivery_of(msg), every_header(msg.headers)
        if await self._in_hand.came_again(msg, delivery):
            return None
        if is_for_another(headers, consumer_address(delivery.stream, delivery.consumer)):
            self.counters.skipped += 1
            addressee = value_of(headers, ADDRESSEE)
            logger.info("Skipped %s of %s: a redrive for %s", msg.subject, delivery, addressee)
            await msg.ack()
            return None
        call = Call(self, msg, delivery, headers, None, handler)
        self._in_hand.add(call)
        is_called = False
        try:
            is_called = await self._is_called(call)
        finally:
            if not is_called:
                self._in_hand.release(call)
        return call if is_called else None

    async def _is_called(self, call: Call) -> bool:
        """Whether the handler is to be called, once that can be told."""
        while True:
            try:
                return await self._may_call(call)
            except PUBLISH_ERRORS as error:
                logger.warning(
                    "Event %d on %s waits: the log cannot be written or read (%s)",
                    *(call.delivery.sequence, call.msg.subject, detail(error)),
                )
                if not await self._wait_in_hand(call):
                    await self._put_off(call)
                    return False

    async def end(self, call: Call, result: HandlerResult) -> None:
        """Act on the handler's result.

        If the handler acknowledged the event itself, that stays; a failure after that is logged.
        """
        self._in_hand.stop(call)
        try:
            await self._end(call, result)
        finally:
            self._in_hand.release(call)

    async def _end(self, call: Call, result: HandlerResult) -> None:
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
        """Let an event be delivered again at once, as if there was no call.

        An event at its last delivery becomes a dead letter.
        """
        self._in_hand.stop(call)
        try:
            if call.msg.is_acked:
                return
            if self._terms.is_last(call.delivery):
                await self._give_up_last(call)
                return
            await self._uncount(call)
            self._keep(call)
            await call.msg.nak()
        finally:
            self._in_hand.release(call)

    async def skip(self, call: Call) -> None:
        """End a call without counting it, and do not acknowledge the event."""
        if not call.msg.is_acked and not self._terms.is_last(call.delivery):
            await self._uncount(call)
        self.leave(call)

    def leave(self, call: Call) -> None:
        """Do not acknowledge: the server delivers the event again, or it becomes a dead letter."""
        if not self._in_hand.holds(call):
            return
        self._in_hand.release(call)
        if call.msg.is_acked:
            return
        call.msg = replace(call.msg)  # its framework may mark its own as answered
        self._keep(call)
        if self._terms.is_last(call.delivery):
            task = asyncio.create_task(self._give_up_last(call))
            self._last.add(task)
            task.add_done_callback(self._last.discard)

    async def _uncount(self, call: Call) -> None:
        if call.attempts is not None:
            call.attempts.begun_count -= 1
            await self._tell(client_of(call.msg), call.delivery, call.attempts)

    async def _give_up_last(self, call: Call) -> None:
        """Write the dead letter of an event whose last delivery got no answer."""
        most = self._terms.max_deliver
        said = f"Its last call ended without an answer: the consumer's max_deliver is {most}."
        config = self._config.in_force(event_type_of(call.msg.subject))
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self.give_up(call, DeadLetter(said, dlq_reason="max_deliveries"), config)
        except (TimeoutError, *PUBLISH_ERRORS) as error:
            logger.error(
                "Event %d on %s is lost to its consumer, and no dead letter can be written (%s). %s"
                " It is still in its stream: set max_deliver to -1.",
                *(call.delivery.sequence, call.msg.subject, detail(error), said),
            )

    async def give_up(self, call: Call, verdict: DeadLetter, config: NATSConsumerConfig) -> bool:
        """Acknowledge an event once the server has its dead letter; else give it back (False)."""
        attempts = call.attempts or Attempts(call.began_at, call.delivery.delivery_count, 1)
        attempts.add(datetime.now(UTC), verdict.error, verdict.reason)
        return await self._dead_letter(call, verdict, config, attempts)

    async def exhausted(self, sequence: int, deliveries: int) -> None:
        """The server reports that it stops to deliver an event, after this number of deliveries."""
        self._in_hand.terms = self._terms._replace(max_deliver=deliveries)
        last = self._retries.at(sequence)
        # A running call ends with a dead letter; other processes write theirs.
        if last is None or last.delivery.delivery_count != deliveries:
            return
        msg, headers = replace(last.msg), every_header(last.msg.headers)
        msg._ackd = False  # noqa: SLF001  (nats-py has no public name for it)
        call = Call(self, msg, last.delivery, headers, last.attempts, last.handler)
        config = self._config.in_force(event_type_of(msg.subject))
        reason = "max_retries_exceeded" if last.attempts.calls else "max_deliveries"
        await self._dead_letter(call, DeadLetter(dlq_reason=reason), config, last.attempts)

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
            is_suspect = attempts.unfinished_count >= SUSPECT
            while is_suspect and not await self._in_hand.is_next_suspect(call):
                if not await self._wait_in_hand(call):
                    await self._put_off(call)
                    return False
            try:
                await self._log.begin(client, delivery, attempts)
            except BaseException:  # its caller may cancel it meanwhile
                attempts.begun_count -= 1
                self._in_hand.stop(call)
                raise
        call.began_at = datetime.now(UTC)
        self._in_hand.keep_in_progress(call)
        return True

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
        self._retries.keep(msg, delivery, attempts, delay, call.handler)
        self.counters.retried += 1
        log_retry(self._config.name, msg, delivery, attempts, delay)
        await self._tell(client_of(msg), delivery, attempts)
        await msg.nak(delay)

    async def _dead_letter(
        self, call: Call, verdict: DeadLetter, config: NATSConsumerConfig, attempts: Attempts
    ) -> bool:
        call.attempts = attempts
        letter = finished(call, verdict, config, attempts)
        if not config.dlq_enabled:
            logger.error(
                "Event %s is given up (%s): %s",
                *(letter.fields["event_id"], verdict.dlq_reason, letter.fields["error_message"]),
            )
            await call.msg.term()
            return True
        held = self._letters.hold(letter)
        while True:
            try:
                await self._letters.write(client_of(call.msg), held)
            except PUBLISH_ERRORS as error:
                logger.error(
                    "The dead letter of event %s cannot be written (%s): it is not "
                    "acknowledged, and will be delivered again.",
                    *(letter.fields["event_id"], detail(error)),
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
        """Wait for a moment with an event that the server might not deliver again."""
        if not self._terms.may_be_last(call.delivery) or client_of(call.msg).is_closed:
            return False
        with contextlib.suppress(*PUBLISH_ERRORS):
            await call.msg.in_progress()
        await asyncio.sleep(min(PAUSE_SECONDS, self._terms.ack_wait_seconds / 3))
        return True

    async def _put_off(self, call: Call) -> None:
        """Let an event come again after a pause, which is no call of its handler."""
        self._keep(call, PAUSE_SECONDS)
        await call.msg.nak(PAUSE_SECONDS)

    def _keep(self, call: Call, delay_seconds: float = 0) -> None:
        """Remember an event that is given back."""
        attempts = call.attempts or Attempts(call.began_at)
        attempts.delivery_count = call.delivery.delivery_count
        self._retries.keep(call.msg, call.delivery, attempts, delay_seconds, call.handler)
