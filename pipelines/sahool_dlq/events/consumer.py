"""The consumer that services trust: no event is acknowledged before it is handled or dead-lettered.

consumer = NATSConsumer(NATSConsumerConfig(name="ndvi-service"))
await consumer.connect()
await consumer.subscribe(handler, subject="sahool.analysis.*")
await consumer.run()          # until SIGTERM; or start(), until close()
"""

import asyncio
import inspect
import logging
import random
from collections.abc import Coroutine, Iterable
from typing import Any

from nats.aio.client import Client

from sahool_dlq.deadletter.subjects import overlaps
from sahool_dlq.errors import StreamError
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.handlers import as_async
from sahool_dlq.events.letter_writer import Tell
from sahool_dlq.events.outbox import PUBLISH_ERRORS
from sahool_dlq.events.results import DeadLetter
from sahool_dlq.events.service import Service
from sahool_dlq.events.subscription import Handler, Subscription
from sahool_dlq.events.totals import publish_total, publish_totals
from sahool_dlq.jetstream.address import shown
from sahool_dlq.jetstream.consumers import default_durable, durable_name
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import (
    ensure_attempts_stream,
    ensure_event_stream,
    ensure_log_stream,
    ensure_totals_stream,
    find_stream,
    named_stream,
)
from sahool_dlq.lazy import is_installed

logger = logging.getLogger(__name__)

_LEVELS = {
    "dlq_writable": logging.INFO,
    "consumer_rewound": logging.WARNING,
    "dead_letter_id_taken": logging.WARNING,
}
_CALLBACK_FAILED = "The callback on_trouble raised an error"


class NATSConsumer(Service):
    """Pulls events, calls a handler, retries with backoff, and dead-letters with the whole context.

    `on_trouble`, async or not, is called with a kind of trouble and a sentence, which is also
    logged: `dlq_unwritable` and, when it is over, `dlq_writable`; `ack_pending`, when so many
    retries wait that the server soon delivers no more events; `dead_letter_limit`, when nearly
    everything was dead-lettered and the consumer stops; `consumer_rewound`, when the durable was
    created again or reset while this process runs, so that handled events are delivered again;
    `dead_letter_id_taken`, when the log already had a message with a dead letter's id.
    """

    def __init__(
        self, config: NATSConsumerConfig | None = None, on_trouble: Tell | None = None
    ) -> None:
        self.config = config or NATSConsumerConfig()
        self._on_trouble = on_trouble
        super().__init__(self.config, self.config)
        self._subscriptions: list[Subscription] = []
        self._rng = random.Random()  # noqa: S311  (jitter, not a secret)
        self._telling: set[asyncio.Task[None]] = set()  # calls of on_trouble

    async def subscribe(
        self,
        handler: Handler,
        subject: str | None = None,
        stream_name: str | None = None,
        consumer_name: str | None = None,
    ) -> None:
        """Prepare a durable consumer for `handler`; `start` runs it.

        The stream is the one named here or in the settings, else the one that captures `subject`.

        Raises RuntimeError before `connect` and after `start`, TypeError for a handler that is not
        async, ValueError for a filter that matches the consumer's own dead letters and for a
        durable that another subscription uses, StreamError if no stream, not the named one, or more
        than one captures `subject`, and if the durable cannot be pulled from.
        """
        connection = self._to_subscribe()
        config = self.config
        handler = as_async(handler, lambda error: DeadLetter(error=error))
        subject = subject or config.subject_filter
        for own in (*config.subjects.log, config.subjects.attempts):
            if overlaps(subject, own):
                raise ValueError(
                    f"The filter {subject} also matches {own}, so the consumer would receive its"
                    f" own messages: use narrower filters, such as {config.subjects.events[0]}."
                )
        stream = await self._stream_for(connection, subject, stream_name)
        named = consumer_name or config.consumer_name
        durable = durable_name(named) if named else default_durable(config.name, subject)
        if any(other.durable == durable for other in self._subscriptions):
            raise ValueError(
                f"Another subscription already uses the durable consumer {durable}: give each"
                " its own consumer_name, or each would receive only some of the events."
            )
        subscription = Subscription(
            connection,
            stream=stream,
            durable=durable,
            subject=subject,
            handler=handler,
            config=config,
            rng=self._rng,
            closing=self._closing,
            tell=self._tell,
        )
        await subscription.prepare()
        self._subscriptions.append(subscription)
        self._intakes.append(subscription)
        if is_installed("prometheus_client"):
            from sahool_dlq.events.metrics import consumer_metrics

            consumer_metrics.watch(config.name, subscription)

    def _chores(self) -> Iterable[Coroutine[Any, Any, None]]:
        return (publish_totals(self.config, self._subscriptions), self._watch())

    async def _say_goodbye(self) -> None:
        # All at once, because each may wait for a server that is down.
        await asyncio.gather(*(publish_total(self.config, each) for each in self._subscriptions))

    async def _watch(self) -> None:
        """Check the events that wait for a retry."""
        while True:
            await asyncio.sleep(self.config.totals_interval_seconds)
            for subscription in self._subscriptions:
                try:
                    await subscription.check_ack_pending()
                    await subscription.dead_letter_removed()
                except PUBLISH_ERRORS as error:
                    logger.info("%s could not be looked up: %s", subscription.durable, error)

    def _tell(self, kind: str, message: str) -> None:
        logger.log(_LEVELS.get(kind, logging.ERROR), "%s", message)
        if self._on_trouble is not None:
            try:
                said = self._on_trouble(kind, message)
            except Exception:
                logger.exception(_CALLBACK_FAILED)
                return
            if inspect.iscoroutine(said):
                task = asyncio.create_task(_finish(said))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _stream_for(self, connection: Client, subject: str, named: str | None) -> str:
        config = self.config
        js = connection.jetstream()
        if named is None and "stream_name" in config.model_fields_set:
            named = config.stream_name
        names = StreamNames(
            events=named or config.stream_name,
            dead_letters=config.dlq_stream_name,
            totals=config.totals_stream_name,
            attempts=config.attempts_stream_name,
            subjects=config.subjects,
        )
        needed = [ensure_log_stream, ensure_totals_stream, ensure_attempts_stream]
        if any(overlaps(subject, own) for own in config.subjects.events):
            needed.append(ensure_event_stream)  # a stream of other subjects is left as it is
        for ensure in needed:
            try:
                await ensure(js, names)
            except (*PUBLISH_ERRORS, StreamError) as error:
                logger.warning("The streams could not be checked or created: %s", error)
        if named is not None:
            return await named_stream(js, named, subject)
        stream = await find_stream(js, subject)
        if stream is None:
            raise StreamError(
                f"No stream captures {subject}: add it to stream {names.events}, or run `dlq "
                "migrate`."
            )
        return stream


async def _finish(callback: Coroutine[Any, Any, object]) -> None:
    try:
        await callback
    except Exception:
        logger.exception(_CALLBACK_FAILED)


async def start_consumer(
    handler: Handler,
    config: NATSConsumerConfig | None = None,
    *,
    on_trouble: Tell | None = None,
) -> NATSConsumer:
    """A consumer that already runs in the background; stop it with `close`. Raises ConnectionError
    if no server answers.
    """
    consumer = NATSConsumer(config, on_trouble)
    if not await consumer.connect():
        raise ConnectionError(f"No NATS server answers at {shown(consumer.config.servers)}.")
    await consumer.subscribe(handler)
    consumer.start_in_background()
    return consumer
