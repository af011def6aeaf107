"""The monitor: a handler gets every dead letter once, and its decision is written to the log.

consumer = DLQConsumer(DLQConsumerConfig(), notifier=page_somebody)
await consumer.connect()
await consumer.subscribe(handler)
await consumer.start()        # until close()

It is a durable consumer, so nothing is missed while it is down. It does not write to the database;
the drain does.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.redaction.text_redaction import TextRedactor
from sahool_dlq.deadletter.sanitize import printable
from sahool_dlq.errors import StreamError
from sahool_dlq.events.closing import Closing
from sahool_dlq.events.handlers import as_async
from sahool_dlq.events.intake import Intake
from sahool_dlq.events.monitor.dlq_event import DLQEvent
from sahool_dlq.events.monitor.triage import (
    DLQAction,
    DLQConsumerConfig,
    News,
    default_action,
    news_of,
    retry_delay,
)
from sahool_dlq.events.outbox import PUBLISH_ERRORS, publish_until_acknowledged
from sahool_dlq.events.place import pulled
from sahool_dlq.events.service import Service
from sahool_dlq.jetstream.address import shown
from sahool_dlq.jetstream.consumers import durable_name
from sahool_dlq.jetstream.incoming import can_hold
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import ensure_log_stream, find_stream

logger = logging.getLogger(__name__)

_LONGEST_LOOKED_AT, _LONGEST_SAID = 10_000, 500  # characters of a text in the log

DLQHandler = Callable[[DLQEvent], Awaitable[DLQAction]]
Notifier = Callable[[DLQEvent], Awaitable[None]]
"""Alerts people about a dead letter; its errors are logged, and it is called again later."""


async def default_dlq_handler(
    event: DLQEvent, config: DLQConsumerConfig | None = None
) -> DLQAction:
    """Alert on critical errors, request a redrive if enabled, else store."""
    return default_action(event, config or DLQConsumerConfig())


async def log_alert(event: DLQEvent) -> None:
    """The default notifier: one log line, with secrets masked as by the drain."""
    logger.error(
        "ALERT: %s in %s: %s (failure %s)",
        *(_said(text) for text in (event.error_type, event.service, event.error_message)),
        event.failure_id,
    )


_redactor = TextRedactor()


def _said(text: str) -> str:
    masked = _redactor.redact_text(text[:_LONGEST_LOOKED_AT])[:_LONGEST_SAID]
    return printable(" ".join(masked.split()))


class DLQConsumer(Service):
    """Calls a handler with every dead letter, and takes the action that it returns."""

    def __init__(
        self, config: DLQConsumerConfig | None = None, *, notifier: Notifier | None = None
    ) -> None:
        self.config = config or DLQConsumerConfig()
        super().__init__(self.config, self.config)
        self._notifier = as_async(notifier or log_alert)
        if not self.config.store_in_db:
            logger.warning("store_in_db=False has no effect: the drain stores every dead letter")

    async def subscribe(
        self, handler: DLQHandler | None = None, subject: str | None = None
    ) -> None:
        """Prepare the durable consumer for `handler`; `start` runs it.

        A new one starts at the beginning of the stream. Raises RuntimeError before `connect` and
        after `start`, TypeError for a handler that is not async, StreamError if no stream or more
        than one captures `subject`, and if the durable cannot be pulled from.
        """
        connection = self._to_subscribe()
        config = self.config
        handler = as_async(handler or partial(default_dlq_handler, config=config))
        subject = subject or config.dlq_subject
        durable = config.consumer_name or f"{config.name}-{subject}"
        intake = _DeadLetters(
            connection,
            stream=await self._stream_for(connection, subject),
            durable=durable_name(durable),
            subject=subject,
            handler=handler,
            notifier=self._notifier,
            config=config,
            closing=self._closing,
        )
        await intake.prepare()
        self._intakes.append(intake)

    async def _stream_for(self, connection: Client, subject: str) -> str:
        js = connection.jetstream()
        names = StreamNames(dead_letters=self.config.dlq_stream_name, subjects=self.config.subjects)
        try:
            await ensure_log_stream(js, names)
        except (*PUBLISH_ERRORS, StreamError) as error:
            logger.warning("The dead-letter stream could not be checked or created: %s", error)
        if await can_hold(js, names.dead_letters, subject):
            return names.dead_letters
        stream = await find_stream(js, subject)
        if stream is None:
            raise StreamError(f"No stream captures {subject}: run `dlq migrate`.")
        return stream


class _DeadLetters(Intake):
    """The dead letters of one subject, each settled by the handler's decision."""

    def __init__(
        self,
        connection: Client,
        *,
        stream: str,
        durable: str,
        subject: str,
        handler: DLQHandler,
        notifier: Notifier,
        config: DLQConsumerConfig,
        closing: Closing,
    ) -> None:
        super().__init__(
            connection,
            stream=stream,
            wanted=pulled(
                durable,
                config.ack_wait_seconds,
                filter_subject=subject,
                max_ack_pending=config.max_ack_pending,
            ),
            ack_wait_seconds=config.ack_wait_seconds,
            max_concurrency=config.max_concurrency,
            closing=closing,
        )
        self._handler = handler
        self._notifier = notifier
        self._config = config
        self._failed: Counter[int] = Counter()  # calls for a dead letter, by its sequence

    async def _settle(self, msg: Msg, delivery: Delivery) -> None:
        """Decide, publish, acknowledge, in this order; after an error it starts again."""
        message = LogMessage(msg.subject, delivery.sequence, delivery.timestamp_ns, msg.data)
        event = DLQEvent.read(message, delivery.stream)
        try:
            action = await self._decide(event)
            if action is DLQAction.ALERT:
                await self._outcome(self._notifier(event), self._config.handler_timeout_seconds)
        except (Exception, asyncio.CancelledError) as error:
            if self._is_cutting_off:
                raise
            delay = retry_delay(delivery.delivery_count, self._config)
            logger.warning(
                "Dead letter %d (%s) is retried in %.0f s: %s: %s",
                event.sequence,
                event.failure_id,
                delay,
                type(error).__name__,
                error,
            )
            await self._give_back(msg, delay)
            return
        function = getattr(self._handler, "func", self._handler)
        reason = f"decided by {getattr(function, '__qualname__', type(function).__name__)}"
        now = datetime.now(UTC)
        for news in news_of(event, action, self._config, reason=reason, now=now):
            if not await self._tell(news):
                await self._give_back(msg)
                return
        self._failed.pop(event.sequence, None)
        self._acknowledge(msg)

    async def _decide(self, event: DLQEvent) -> DLQAction:
        """The handler's action, or STORE if it failed too often; raises the handler's errors."""
        try:
            seconds = self._config.handler_timeout_seconds
            action: object = await self._outcome(self._handler(event), seconds)
            if not isinstance(action, DLQAction):
                raise TypeError(f"The handler returned {action!r}, not a DLQAction.")
        except (Exception, asyncio.CancelledError):
            if self._is_cutting_off:
                raise
            # Not the delivery count, because not every delivery becomes a call.
            self._failed[event.sequence] += 1
            if self._failed[event.sequence] < self._config.max_handler_failures:
                raise
            logger.exception(
                "The handler failed on dead letter %d (%s) %d times: it is treated as STORE, and"
                " the drain stores it",
                event.sequence,
                event.failure_id,
                self._failed[event.sequence],
            )
            return DLQAction.STORE
        return action

    async def _tell(self, news: News) -> bool:
        """Publish until the server has it; no more messages are taken while the log cannot be
        written. False if the consumer is closed before.
        """

        async def publish() -> None:
            js = self.connection.jetstream()
            headers = {"Nats-Msg-Id": news.message_id}
            try:
                await js.publish(news.subject, news.body, headers=headers, timeout=5)
            except PUBLISH_ERRORS:
                self._log_is_writable.clear()
                raise

        try:
            return await publish_until_acknowledged(
                publish, what=f"A message on {news.subject}", give_up=self._closing
            )
        finally:
            self._log_is_writable.set()


async def start_dlq_consumer(
    handler: DLQHandler | None = None,
    config: DLQConsumerConfig | None = None,
    *,
    notifier: Notifier | None = None,
) -> DLQConsumer:
    """A monitor that already runs in the background; stop it with `close`. Raises ConnectionError
    if no server answers.
    """
    consumer = DLQConsumer(config, notifier=notifier)
    if not await consumer.connect():
        raise ConnectionError(f"No NATS server answers at {shown(consumer.config.servers)}.")
    await consumer.subscribe(handler)
    consumer.start_in_background()
    return consumer
