"""Dead letters for handlers that nats-py calls, in pull loops and callbacks."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

from nats.aio.msg import Msg

from sahool_dlq.deadletter.headers import is_for_another
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.events.beside.in_hand import Call
from sahool_dlq.events.beside.settlers import Settlers
from sahool_dlq.events.cause import late_handler
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.handlers import check_async, name_of
from sahool_dlq.events.results import DeadLetter, HandlerResult, ProcessingResult, Retry
from sahool_dlq.jetstream.headers import every_header
from sahool_dlq.jetstream.pull import delivery_of

__all__ = ["dead_letter", "with_dead_letters"]

P = ParamSpec("P")


def with_dead_letters(
    config: NATSConsumerConfig,
) -> Callable[[Callable[P, Awaitable[HandlerResult | None]]], Callable[P, Awaitable[None]]]:
    """Retry and dead-letter a handler's failures as `NATSConsumer` does.

    The handler takes a nats-py message of a pull or push subscription and does not acknowledge it.
    The message is acknowledged when the handler returns nothing or SUCCESS. Exceptions, RETRY and
    DEAD_LETTER are retried with backoff and then dead-lettered according to `config`. Of `config`
    it uses `name`, `version`, the retries, the policies and the subjects, but not the connection.

    The decorated handler raises StreamError for a message of a consumer that does not acknowledge
    each event (an ordered one, core NATS), and nats-py's errors once its connection is closed.
    """
    settlers = Settlers(config)

    def decorate(
        handler: Callable[P, Awaitable[HandlerResult | None]],
    ) -> Callable[P, Awaitable[None]]:
        check_async(handler)

        @functools.wraps(handler)
        async def handle(*args: P.args, **kwargs: P.kwargs) -> None:
            given = (each for each in (*args, *kwargs.values()) if isinstance(each, Msg))
            if (msg := next(given, None)) is None:
                raise TypeError(f"{name_of(handler)} was called without a nats-py message.")
            call = await settlers.begin(msg, name_of(handler))
            if call is not None:
                work = functools.partial(handler, *args, **kwargs)
                await _run(call, work, config.handler_timeout_seconds)

        return handle

    return decorate


async def dead_letter(
    msg: Msg,
    error: BaseException | None,
    config: NATSConsumerConfig,
    *,
    reason: str | None = None,
    dlq_reason: str = "handler_dead_letter",
) -> bool:
    """Give an event up: write its dead letter, then acknowledge it.

    For a handler with its own retries; each delivery counts as one call. `error` is the caught
    exception, `reason` a sentence if there is none, `dlq_reason` a short code for statistics.
    Returns False if the dead letter cannot be written: then the event is given back and delivered
    again. A redrive for another consumer is only acknowledged. Raises the same errors as handlers
    of `with_dead_letters`.
    """
    settler = await Settlers(config).of(msg)
    delivery, headers = delivery_of(msg), every_header(msg.headers)
    if is_for_another(headers, consumer_address(delivery.stream, delivery.consumer)):
        await msg.ack()
        return True
    attempts = await settler.attempts_of(msg)
    call = Call(settler, msg, delivery, headers, attempts, _where_caught(error))
    return await settler.give_up(call, DeadLetter(reason, error, dlq_reason), config)


async def _run(
    call: Call, work: Callable[[], Awaitable[HandlerResult | None]], timeout_seconds: float | None
) -> None:
    """Call a handler, wait for it, and act on its result."""
    result: HandlerResult
    try:
        async with asyncio.timeout(timeout_seconds) as timer:
            said: object = await work()  # the call fails if its arguments do not match
        if said is not None and not isinstance(said, HandlerResult):
            raise TypeError(f"The handler returned {said!r}, not None or a ProcessingResult.")
        result = ProcessingResult.SUCCESS if said is None else said
    except BaseException as error:
        if is_end(error):
            with contextlib.suppress(Exception):
                await call.give_back()
            raise
        if isinstance(error, TimeoutError) and timer.expired():
            error.args = (late_handler(timeout_seconds or 0),)
        result = Retry(error=error)
    await call.end(result)


def is_end(error: BaseException) -> bool:
    """Whether an exception ends the program, or cancels the running task from outside."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and bool(task.cancelling())
    return isinstance(error, (SystemExit, KeyboardInterrupt, GeneratorExit))


def _where_caught(error: BaseException | None) -> str:
    """The function in which an exception was caught."""
    trace: Any = error.__traceback__ if error is not None else None
    return trace.tb_frame.f_code.co_qualname if trace is not None else "unknown"
