"""The original events of failures: exact bytes and all headers.

The events' stream is read first, by sequence. A message there is the event if the failure's id,
computed from stream, sequence, time and consumer, matches. Otherwise the dead letter leads to the
event; if its stream no longer has it, the dead letter's own copy is used, which its author chose.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError
from psycopg import Connection

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.headers import Headers
from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.errors import NotPermittedError, ServerUnavailableError
from sahool_dlq.jetstream.consumers import is_name
from sahool_dlq.jetstream.reader import LogReader, log_state
from sahool_dlq.jetstream.stored import StoredMessage, stored_message
from sahool_dlq.redrive.origin import (
    ExpiredError,
    RefusedError,
    event_headers,
    original_event,
    stored_dead_letter,
)
from sahool_dlq.redrive.source import OwnCopyError, as_stored
from sahool_dlq.settings import Settings

__all__ = [
    "AT_ONCE",
    "PLACE",
    "Missing",
    "Place",
    "RawEvent",
    "RawEvents",
    "Source",
    "stored_event",
]

Source = Literal["stream", "dead_letter"]
"""The events' stream, or the dead letter's own copy."""

AT_ONCE = 16
"""Events that are requested and held at once."""

PLACE = (
    "f.id::text, f.original_stream, f.original_sequence, f.consumer_name, f.dlq_sequence,"
    " f.published_at"
)
"""The columns of a `Place`, over `failed_events f`."""


class Place(NamedTuple):
    """Where the event of a failure is searched."""

    failure_id: str
    stream: str | None
    sequence: int | None
    consumer: str | None
    dlq_sequence: int | None
    dead_lettered_at: datetime | None  # the server's time of the dead letter


@dataclass(frozen=True, slots=True)
class RawEvent:
    """An original event."""

    failure_id: str
    subject: str
    body: bytes
    headers: Headers  # all of them
    source: Source
    why_copy: str | None = None  # why it is the dead letter's copy
    stream: str | None = None
    sequence: int | None = None
    published_at: datetime | None = None  # the server's time

    @property
    def headers_again(self) -> Headers:
        """The headers for publishing it again: without those of the server and of redrives."""
        return event_headers(self.headers)


@dataclass(frozen=True, slots=True)
class Missing:
    """An event that can no longer be read."""

    failure_id: str
    reason: str


async def stored_event(client: Client, place: Place) -> StoredMessage | None:
    """The event of a failure in its stream; None if it is no longer there.

    Raises as `stored_message` does.
    """
    stream, sequence, consumer = place.stream, place.sequence, place.consumer
    if not stream or not sequence or not consumer or not is_name(stream):
        return None
    stored = await stored_message(client, stream, sequence)
    if stored is None:
        return None
    found = ids.failure_id(stream, sequence, stored.timestamp_ns, consumer)
    return stored if found == place.failure_id else None


class RawEvents:
    """Reads events, with the rights of a connection to NATS and of one to PostgreSQL."""

    def __init__(self, client: Client, connection: Connection[Any], reader: LogReader) -> None:
        self._client = client
        self._connection = connection
        self._reader = reader

    @classmethod
    async def of(
        cls, settings: Settings, client: Client, connection: Connection[Any]
    ) -> "RawEvents":
        """Raises as `log_state` does if there is no log."""
        subjects = settings.subjects
        state = await log_state(client, settings.dlq_stream, subjects.log)
        return cls(client, connection, LogReader(client, state.stream, subjects.log))

    async def read(self, places: Sequence[Place]) -> list[RawEvent | Missing]:
        """The event of each failure, all at once and in order, or why it no longer exists.

        Raises NotPermittedError if a right to read is missing, and ServerUnavailableError if NATS
        does not answer.
        """

        async def one(place: Place) -> RawEvent | Missing:
            try:
                return await self._in_stream(place) or await self._by_letter(place)
            except (RefusedError, ExpiredError) as error:
                return Missing(place.failure_id, str(error))

        try:
            return await asyncio.gather(*map(one, places))
        except (nats.errors.Error, APIError, TimeoutError) as error:
            raise ServerUnavailableError(
                f"The raw events cannot be read from NATS ({error!r}): try again."
            ) from error

    async def _in_stream(self, place: Place) -> RawEvent | None:
        try:
            stored = await stored_event(self._client, place)
        except (APIError, NotPermittedError):  # its dead letter says more
            return None
        if stored is None:
            return None
        return RawEvent(
            place.failure_id,
            stored.subject,
            stored.data,
            stored.headers,
            "stream",
            stream=place.stream,
            sequence=stored.sequence,
            published_at=time_of_ns(stored.timestamp_ns),
        )

    async def _by_letter(self, place: Place) -> RawEvent:
        message = await stored_dead_letter(
            self._reader,
            self._connection,
            place.failure_id,
            place.dlq_sequence,
            place.dead_lettered_at,
        )
        event = await original_event(self._client, message)
        source: Source = "stream"
        why = None
        try:
            event = await as_stored(self._client, event)
        except OwnCopyError as error:
            source, why = "dead_letter", str(error)
        return RawEvent(
            place.failure_id,
            event.subject,
            event.body,
            {name: value for name, value in event.had.items() if value != []},  # as it was sent
            source,
            why,
            event.stream,
            event.sequence,
            event.published_at,
        )
