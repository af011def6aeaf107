"""The source of a redrive's bytes: the events' stream, or else the dead letter's own copy.

A dead letter's author states which event failed. A forged one could make the redriver publish a
chosen body on a subject that its author may not use. So the event is taken from its stream, where
only permitted users can have published it.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError
from psycopg import Connection

from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.deadletter.replays import ReplayedEvent
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.redrive.lifetime import ttl_of
from sahool_dlq.redrive.origin import Event, ExpiredError, event_headers

__all__ = ["OwnCopyError", "absent_count", "as_stored", "stored_event"]

_NEVER_IN_A_NAME = set(" \t\r\n\0.*>/\\")


class OwnCopyError(Exception):
    """Only the dead letter has the claimed event; the message says why."""


async def as_stored(client: Client, event: Event) -> Event:
    """The event of a dead letter as its stream still has it.

    Raises OwnCopyError if stream, sequence, time and subject do not lead to it, and
    nats.errors.TimeoutError if NATS does not answer.
    """
    stream, sequence = event.stream, event.sequence
    if not stream or sequence is None or event.timestamp_ns is None:
        raise OwnCopyError("its dead letter does not say which event of a stream failed")
    if _NEVER_IN_A_NAME & set(stream):
        raise OwnCopyError(f"{stream[:100]!r} is not a stream")
    try:
        stored = await stored_message(client, stream, sequence)
    except (APIError, NotPermittedError, nats.errors.NoRespondersError) as error:
        said = getattr(error, "description", None) or str(error)
        raise OwnCopyError(f"its event cannot be read from stream {stream}: {said}") from error
    if stored is None:
        raise OwnCopyError(f"stream {stream} no longer has its event, {sequence}")
    if (stored.timestamp_ns, stored.subject) != (event.timestamp_ns, event.subject):
        raise OwnCopyError(f"message {sequence} of {stream} is not the event of its dead letter")
    return replace(
        event,
        body=stored.data,
        headers=event_headers(stored.headers),
        ttl=ttl_of(stored.headers),
        had=stored.headers,
    )


async def stored_event(client: Client, replayed: ReplayedEvent, subject: str) -> Event:
    """The event of a replay.

    Raises ExpiredError if its stream no longer has it, and as `as_stored` does.
    """
    ns = replayed.timestamp_ns
    published_at = None if ns is None else time_of_ns(ns)
    event = Event(
        subject,
        b"",
        {},
        published_at=published_at,
        stream=replayed.stream,
        sequence=replayed.sequence,
        timestamp_ns=ns,
    )
    try:
        return await as_stored(client, event)
    except OwnCopyError as error:
        raise ExpiredError(str(error)) from error


async def absent_count(client: Client, connection: Connection[Any], ids: Sequence[str]) -> int:
    """The number of failures whose event is certainly missing in the stream, by its sequences."""
    rows = connection.execute(
        "SELECT coalesce(original_stream, ''), array_agg(original_sequence) FROM failed_events"
        " WHERE id = ANY(%s::uuid[]) GROUP BY 1",
        [list(ids)],
    ).fetchall()
    count = 0
    for stream, sequences in rows:
        state = await _state(client, stream)
        gone = set(state.get("deleted") or ())
        first, last = state.get("first_seq", 1), state.get("last_seq", 0)
        count += sum(s is None or not first <= s <= last or s in gone for s in sequences)
    return count


async def _state(client: Client, stream: str) -> dict[str, Any]:
    """The state of a stream's messages; empty if it cannot be read."""
    if not stream or _NEVER_IN_A_NAME & set(stream):
        return {}
    try:
        answer = await client.request(
            f"$JS.API.STREAM.INFO.{stream}", b'{"deleted_details": true}', timeout=30
        )
    except (nats.errors.Error, NotPermittedError):
        return {}
    state: dict[str, Any] = json.loads(answer.data).get("state") or {}
    return state
