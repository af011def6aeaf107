"""Reads a dead-letter stream of others, by its messages' sequences and nothing else.

It needs only the rights to read the stream (`STREAM.INFO` and `STREAM.MSG.GET`), creates no
consumer, and reads work queues and interest streams too, which would refuse one.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import NamedTuple

from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from sahool_dlq.deadletter.imports.reading import ForeignMessage
from sahool_dlq.errors import StreamError
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.stores.postgres.imports import ImportPosition

__all__ = ["ForeignState", "foreign_messages", "foreign_state", "is_same"]


class ForeignState(NamedTuple):
    """The stream as it stands."""

    created: datetime
    first_sequence: int
    last_sequence: int


async def foreign_state(client: Client, stream: str) -> ForeignState:
    """The state of the stream; raises StreamError if there is none, or it cannot be read."""
    try:
        info = await client.jetstream().stream_info(stream)
    except NotFoundError:
        raise StreamError(
            f"There is no stream {stream}: `nats stream ls` lists the streams of the account."
        ) from None
    except APIError as error:
        raise StreamError(f"Stream {stream} cannot be read: {error.description}.") from error
    created = info.created or datetime.fromtimestamp(0, UTC)
    return ForeignState(created.astimezone(UTC), info.state.first_seq, info.state.last_seq)


async def is_same(
    client: Client, stream: str, state: ForeignState, position: ImportPosition
) -> bool:
    """Whether the stream still has, or had, the message of the position.

    A stream that was deleted and created again, or set back to an older state, has another message
    there, or none. A restored stream has the same one, whenever it was created.
    """
    stored = await stored_message(client, stream, position.sequence)
    if stored is not None:
        return stored.timestamp_ns == position.timestamp_ns
    return state.created == position.created and position.sequence <= state.last_sequence


async def foreign_messages(
    client: Client, stream: str, filters: tuple[str, ...], after: int, until: int
) -> AsyncIterator[ForeignMessage]:
    """The stored messages that a filter matches, in order, above `after` and up to `until`."""
    heads: dict[str, ForeignMessage | None] = {}
    while True:
        for wanted in filters:
            head = heads.get(wanted)
            if wanted not in heads or (head and head.sequence <= after):
                heads[wanted] = await _next(client, stream, wanted, after + 1, until)
        first = min((head for head in heads.values() if head), key=_sequence, default=None)
        if first is None:
            return
        after = first.sequence
        yield first


def _sequence(message: ForeignMessage) -> int:
    return message.sequence


async def _next(
    client: Client, stream: str, wanted: str, start: int, until: int
) -> ForeignMessage | None:
    if start > until:
        return None
    stored = await stored_message(client, stream, start, wanted)
    if stored is None or stored.sequence > until:
        return None
    return ForeignMessage(
        stream, stored.subject, stored.sequence, stored.timestamp_ns, stored.headers, stored.data
    )
