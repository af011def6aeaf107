"""Dead letters for the subscribers of a FastStream broker; needs the extra `faststream`."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self

from faststream.exceptions import (
    AckMessage,
    IgnoredException,
    NackMessage,
    RejectMessage,
    SkipMessage,
)
from faststream.middlewares import AckPolicy
from nats.aio.msg import Msg

from sahool_dlq.errors import StreamError
from sahool_dlq.events.beside.handlers import is_end
from sahool_dlq.events.beside.in_hand import Call
from sahool_dlq.events.beside.settlers import Settlers
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.failed_event import FailedEvent
from sahool_dlq.events.results import DeadLetter, ProcessingResult, Retry
from sahool_dlq.jetstream.acks import ACKS

if TYPE_CHECKING:
    from faststream.nats import NatsBroker

__all__ = ["faststream_dead_letters"]

logger = logging.getLogger(__name__)


def faststream_dead_letters(broker: "NatsBroker", config: NATSConsumerConfig) -> None:
    """Retry and dead-letter failures of a broker's subscribers as `NATSConsumer` does.

    Call it before the broker starts. It serves subscribers of a JetStream stream, pull and push,
    one by one or in batches; of others it warns when the broker starts, and leaves them as they
    are. With one that answers its events itself (`AckPolicy.MANUAL`) the start raises StreamError.
    The AsyncAPI document gets the channel of the dead letters. `name`, `version`, the retries, the
    policies and the subjects of `config` count; how to connect does not.
    """
    broker.add_middleware(_Middleware(Settlers(config)))
    broker.publisher(
        config.subjects.dead_letter("EVENT_TYPE", _service(config)).replace(
            "EVENT_TYPE", "{event_type}"
        ),
        title="DeadLetters",
        description="Dead letters: events that were given up, with error and body.",
        schema=FailedEvent,
    )
    start = broker.start

    async def start_checked() -> None:
        if manual := ", ".join(_name(each) for each in broker.subscribers if _is_manual(each)):
            raise StreamError(
                f"Subscriber {manual} answers its events itself (AckPolicy.MANUAL), so a failure"
                " cannot be told from an event that it leaves for later: take the policy away, and"
                " raise an exception, NackMessage or RejectMessage; or give it a broker of its own."
            )
        for subscriber in broker.subscribers:
            if problem := _problem(subscriber):
                logger.warning("Subscriber %s %s.", _name(subscriber), problem)
        await start()

    broker.start = start_checked


def _service(config: NATSConsumerConfig) -> str | None:
    return config.name if config.dlq_subject_per_service else None


def _problem(subscriber: Any) -> str | None:
    """Why a subscriber's failures cannot be recorded or redriven; None if they can."""
    if not _is_served(subscriber):
        return (
            "does not record failures: it has no JetStream consumer that acknowledges each "
            "event (stream=…, not ordered_consumer, not ack_policy=ACK_FIRST), so it is not "
            "changed"
        )
    if not (subscriber.config.durable_name or getattr(subscriber, "queue", "")):
        return (
            "has no durable: its failures are recorded, but after a restart no redrive can be "
            "addressed to it; give it durable=…"
        )
    return None


def _is_manual(subscriber: Any) -> bool:
    is_acknowledged = getattr(subscriber, "stream", None) is not None
    return is_acknowledged and subscriber.ack_policy is AckPolicy.MANUAL


def _is_served(subscriber: Any) -> bool:
    return (
        getattr(subscriber, "stream", None) is not None
        and not subscriber.extra_options.get("ordered_consumer")
        and subscriber.ack_policy not in (AckPolicy.ACK_FIRST, AckPolicy.MANUAL)
    )


def _name(subscriber: Any) -> str:
    return ", ".join(each.name for each in subscriber.calls)


class _Middleware:
    """Creates the middleware of each message; see FastStream's `BaseMiddleware`."""

    def __init__(self, settlers: Settlers) -> None:
        self._settlers = settlers
        self._refused: set[str] = set()

    def __call__(self, msg: Any, /, *, context: Any) -> "_Delivered":
        return _Delivered(self, msg, context)

    async def begin(self, msg: Msg, handler: str) -> Call | None:
        """Start to handle an event. Raises StreamError, which is logged once."""
        try:
            return await self._settlers.begin(msg, handler)
        except StreamError as error:
            if str(error) not in self._refused:
                self._refused.add(str(error))
                logger.error("Failures of %s are not recorded: %s", handler, error)
            raise


class _Delivered:
    """One message or batch, from its arrival to its acknowledgement."""

    def __init__(self, middleware: _Middleware, msg: Any, context: Any) -> None:
        self._middleware = middleware
        self._msg = msg
        self._context = context
        self._calls: list[Call] = []

    async def __aenter__(self) -> Self:
        subscriber = self._context.get_local("handler_")
        # A handler may request another message, which does not belong to the subscriber.
        is_nested = self._context.get_local("message") is not None
        if subscriber is None or is_nested or not _is_served(subscriber):
            return self
        messages: list[Any] = self._msg if isinstance(self._msg, list) else [self._msg]
        if not all((getattr(each, "reply", None) or "").startswith(ACKS) for each in messages):
            return self  # of FastStream's test broker
        taken: list[Msg] = []
        try:
            for msg in list(messages):
                if call := await self._middleware.begin(msg, _name(subscriber)):
                    self._calls.append(call)
                    taken.append(msg)
        except StreamError:
            return self
        except BaseException:
            for call in self._calls:
                call.leave()
            raise
        messages[:] = taken
        if not taken:
            raise SkipMessage
        return self

    async def __aexit__(self, _: Any, error: BaseException | None, *__: Any) -> bool:
        try:
            for call in self._calls:
                await _settle(call, error)
        finally:
            for call in self._calls:
                call.leave()  # a settled one is already done
                call.msg._ackd = True  # noqa: SLF001  (FastStream would answer what has none)
        return False

    async def consume_scope(self, call_next: Any, msg: Any) -> Any:
        """FastStream calls the handler through this."""
        return await call_next(msg)

    async def publish_scope(self, call_next: Any, command: Any) -> Any:
        """FastStream publishes through this."""
        return await call_next(command)


async def _settle(call: Call, error: BaseException | None) -> None:
    """Acknowledge, retry or dead-letter by the result of parsing, handler and publishing."""
    if error is None or isinstance(error, AckMessage):
        await call.end(ProcessingResult.SUCCESS)
    elif isinstance(error, NackMessage):
        delay = error.extra_options.get("delay")
        await call.end(Retry("The handler raised NackMessage.", delay_seconds=delay))
    elif isinstance(error, RejectMessage):
        await call.end(DeadLetter("The handler raised RejectMessage.", dlq_reason="rejected"))
    elif isinstance(error, SkipMessage):
        await call.skip()
    elif isinstance(error, (IgnoredException, asyncio.CancelledError)) or is_end(error):
        await call.give_back()
    else:
        await call.end(Retry(error=error))
