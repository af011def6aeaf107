"""The process in which `dlq try` runs a handler: one call for each event.

It needs only the packages of a service, so that it can run in the service's own environment. It has
no connection to NATS, so it publishes, acknowledges and stores nothing.

    python -m sahool_dlq.events.trial READ_FD WRITE_FD
"""

import asyncio
import base64
import faulthandler
import importlib
import inspect
import json
import pdb  # noqa: T100  (--pdb)
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

from sahool_dlq.deadletter.headers import Headers, redrive_of
from sahool_dlq.events.attempts import Attempts
from sahool_dlq.events.cause import cause_of, late_handler
from sahool_dlq.events.config import ConsumerContext
from sahool_dlq.events.failure import verdict_cause
from sahool_dlq.events.handlers import name_of
from sahool_dlq.events.results import DeadLetter, HandlerResult, ProcessingResult, Retry

__all__ = ["HANG_GRACE_SECONDS", "as_message", "context_of", "main", "receive", "send"]

HANG_GRACE_SECONDS = 1.0
"""After its time an async handler is cancelled; one that blocks its process writes its trace."""


def as_message(
    *, subject: str, data: bytes, headers: Headers, attempt: int, max_retries: int, **place: Any
) -> dict[str, Any]:
    """An event in the form that is sent to this process."""
    return {
        "subject": subject,
        "data": base64.b64encode(data).decode(),
        "headers": dict(headers),
        "attempt": attempt,
        "max_retries": max_retries,
        **place,
    }


def context_of(message: dict[str, Any]) -> ConsumerContext:
    """The context that a handler gets, as from its consumer."""
    headers: Headers = message["headers"]
    published_at = message.get("published_at")
    redrive = redrive_of(headers)
    return ConsumerContext(
        subject=message["subject"],
        data=base64.b64decode(message["data"]),
        headers={k: v if isinstance(v, str) else v[-1] for k, v in headers.items()},
        repeated_headers={k: v for k, v in headers.items() if isinstance(v, list)},
        attempt=message["attempt"],
        max_retries=message["max_retries"],
        stream=message.get("stream") or "",
        sequence=message.get("sequence") or 0,
        published_at=published_at and datetime.fromisoformat(published_at),
        redrive_of=redrive.root if redrive else None,
    )


def send(connection: Connection, value: dict[str, Any]) -> None:
    """Send one message to the other process."""
    connection.send_bytes(json.dumps(value).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """The next message of the other process; raises EOFError if that has ended."""
    value: dict[str, Any] = json.loads(connection.recv_bytes())
    return value


def load(target: str) -> Callable[..., Any]:
    """The handler of `module:name`, or of `module:object.method`.

    Raises ValueError if there is no callable one, and the module's own errors.
    """
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{found.__name__} has no {part}")
        found = getattr(found, part)
    if inspect.isclass(found) or not callable(found):
        raise ValueError(f"{name} of {module} is not a function that takes an event")
    handler: Callable[..., Any] = found
    return handler


def main() -> None:
    """Load the handler that the first message names, then call it for each following message."""
    reading, writing = int(sys.argv[1]), int(sys.argv[2])
    inbox, outbox = Connection(reading, writable=False), Connection(writing, readable=False)
    wanted = receive(inbox)
    sys.path.insert(0, wanted["folder"])
    try:
        handler = load(wanted["handler"])
    except BaseException as error:  # noqa: BLE001  (whatever a module does when it is loaded)
        send(outbox, {"error": f"{type(error).__name__}: {error}", "trace": cause_of(error)[2]})
        return
    send(outbox, {"handler": name_of(handler)})
    asyncio.run(_serve(handler, wanted, inbox, outbox))


async def _serve(
    handler: Callable[..., Any], wanted: dict[str, Any], inbox: Connection, outbox: Connection
) -> None:
    seconds, is_debugged = wanted["seconds"], wanted["is_debugged"]
    with open(wanted["trace_file"], "w") as trace:  # noqa: ASYNC230, PTH123  (once, before all else)
        while True:
            try:
                # Tasks that a handler left behind go on meanwhile.
                message = await asyncio.to_thread(receive, inbox)
            except EOFError:
                return
            if seconds:
                faulthandler.dump_traceback_later(seconds + HANG_GRACE_SECONDS, file=trace)
            send(outbox, await _call(handler, context_of(message), seconds, is_debugged))
            faulthandler.cancel_dump_traceback_later()


async def _call(
    handler: Callable[..., Any], context: ConsumerContext, seconds: float | None, is_debugged: bool
) -> dict[str, Any]:
    """The result of the handler for an event, as values for JSON."""
    began, began_at = time.perf_counter(), datetime.now(UTC)
    result: HandlerResult
    is_raised = False
    try:
        said = await _outcome(handler, context, seconds)
        if not isinstance(said, HandlerResult):
            raise TypeError(f"The handler returned {said!r}, not a ProcessingResult.")
        result = said
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (whatever a handler raises is its failure)
        result, is_raised = Retry(error=error), True
        if is_debugged:
            _debug(error)
    took = time.perf_counter() - began
    if result is ProcessingResult.SUCCESS:
        return {"result": "success", "seconds": took}
    asked = result if isinstance(result, Retry | DeadLetter) else None
    is_dead = result is ProcessingResult.DEAD_LETTER or isinstance(result, DeadLetter)
    verdict = DeadLetter(
        asked.reason if asked else None,
        asked.error if asked else None,
        dlq_reason="handler_dead_letter" if is_dead else "max_retries_exceeded",
    )
    error_type, message, trace = verdict_cause(verdict, Attempts(began_at))
    return {
        "result": "raised" if is_raised else "dead_letter" if is_dead else "retry",
        "seconds": took,
        "error_type": error_type,
        "error_message": message,
        "stack_trace": trace,
        "is_late": seconds is not None and took >= seconds and error_type == "TimeoutError",
    }


async def _outcome(
    handler: Callable[..., Any], context: ConsumerContext, seconds: float | None
) -> object:
    """The handler's result, within `seconds`; raises its errors, and TimeoutError."""
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            said: object = handler(context)
            return await said if inspect.isawaitable(said) else said
    except TimeoutError as error:
        if timer.expired() and seconds is not None and not error.args:
            error.args = (late_handler(seconds),)
        raise


def _debug(error: BaseException) -> None:
    """Open the debugger on the frames of an exception, in the terminal."""
    traceback.print_exception(error)
    pdb.post_mortem(error.__traceback__)


if __name__ == "__main__":
    main()
