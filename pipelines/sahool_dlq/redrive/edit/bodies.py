"""Bodies in every format that the decoders know: opened as JSON, changed, closed again."""

from collections.abc import Callable
from dataclasses import replace

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.redrive.origin import Event, RefusedError

__all__ = ["as_json", "edited"]


def as_json(event: Event, decoders: Decoders) -> Event:
    """The event with its body as JSON; a body of no known format stays as it is.

    Raises RefusedError if the body cannot be read.
    """
    try:
        return replace(event, body=decoders.opened(event.body, event.subject, event.had).json)
    except BodyError as error:
        raise RefusedError(f"it cannot be edited: {error}") from error


def edited(event: Event, decoders: Decoders, change: Callable[[bytes], bytes]) -> bytes:
    """The body of an event in its own format after `change` changed its JSON.

    Raises RefusedError if the body cannot be read, or its format cannot hold the change, and what
    `change` raises.
    """
    try:
        opened = decoders.opened(event.body, event.subject, event.had)
        body = opened.closed(change(opened.json))
        decoders.opened(body, event.subject, event.had)  # what cannot be read again is not sent
        return body
    except BodyError as error:
        raise RefusedError(f"it cannot be edited: {error}") from error
