"""One durable consumer at work: pull, handle, settle.

For every event exactly one of these happens: it is acknowledged after its handler succeeded; it is
given back with a delay; it is acknowledged after the server acknowledged its dead letter; or the
process goes away and the server delivers it again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from pipelines.deadletter.envelope import encode_case_event
from pipelines.deadletter.ids import consumer_address, is_uuid
from pipelines.deadletter.message import time_of_ns
from pipelines.deadletter.subjects import event_type_of, subject_token
from pipelines.events.config import ConsumerContext, NATSConsumerConfig, ProcessingResult
from pipelines.events.failure import REDRIVE_ATTEMPT, Attempts, dead_letter_fields, parse_body
from pipelines.events.intake import Intake, nak
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
from pipelines.jetstream.pull import Delivery, delivery_of

logger = logging.getLogger(__name__)

Handler = Callable[[ConsumerContext], Awaitable[ProcessingResult]]

_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class Counters:
    """What a subscription did since it started."""

    handled: int = 0  # handler calls that ended
    succeeded: int = 0
    retried: int = 0
    dead_lettered: int = 0
    skipped: int = 0  # redrives addressed to another consumer


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
        closing: asyncio.Event,
    ) -> None:
        super().__init__(
            connection,
            stream=stream,
            wanted=ConsumerConfig(
                durable_name=durable if config.durable else None,
                name=durable,
                ack_policy=AckPolicy.EXPLICIT,
                deliver_policy=DeliverPolicy.ALL,
                filter_subject=subject,
                ack_wait=config.ack_wait_seconds,
                max_deliver=-1,  # the library counts; an exhausted message would be unreachable
                max_ack_pending=config.max_ack_pending,
                inactive_threshold=None if config.durable else 300,
            ),
            ack_wait_seconds=config.ack_wait_seconds,
            max_concurrency=config.max_concurrency,
            shutdown_seconds=config.shutdown_seconds,
            closing=closing,
        )
        self.counters = Counters()
        self.started_at = datetime.now(UTC)
        self._handler = handler
        self._config = config
        self._rng = rng
        self._attempts: dict[tuple[int, int], Attempts] = {}  # by Delivery.event

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
                await self._answer(msg, nak(delay_seconds))
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


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
