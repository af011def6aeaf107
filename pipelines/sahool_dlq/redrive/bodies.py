"""Edits of bodies in every format that the decoders know: opened as JSON, changed, closed again."""

from collections.abc import Callable
from typing import NamedTuple

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.redrive.origin import Event, RefusedError

__all__ = ["Edited", "edited"]


class Edited(NamedTuple):
    """An edited body in its own format, and both bodies as JSON."""

    body: bytes
    before: bytes
    after: bytes  # of the new body, so with what its format makes of the edit


def edited(event: Event, decoders: Decoders, change: Callable[[bytes], bytes]) -> Edited:
    """The body of an event after `change` changed its JSON.

    Raises RefusedError if the body cannot be read, or its format cannot hold the change, and what
    `change` raises.
    """
    try:
        opened = decoders.opened(event.body, event.subject, event.had)
        body = opened.closed(change(opened.json))
        after = decoders.opened(body, event.subject, event.had)
    except BodyError as error:
        raise RefusedError(f"it cannot be edited: {error}") from error
    return Edited(body, opened.json, after.json)
