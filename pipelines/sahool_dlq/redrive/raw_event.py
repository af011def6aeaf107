"""The event of a failure, to be read and not redriven: for a preview, or for another NATS."""

from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.redrive.choose.plan import PlannedFailure
from sahool_dlq.redrive.origin import (
    Event,
    ExpiredError,
    RefusedError,
    original_event,
    stored_dead_letter,
)
from sahool_dlq.redrive.source import OwnCopyError, as_stored

__all__ = ["raw_event"]


async def raw_event(
    client: Client, reader: LogReader, connection: Connection[Any], row: PlannedFailure
) -> Event | None:
    """The event as it failed, from its stream or else its dead letter; None if neither has it."""
    try:
        message = await stored_dead_letter(
            reader, connection, row.failure_id, row.dlq_sequence, row.published_at
        )
        event = await original_event(client, message)
        with suppress(OwnCopyError):
            event = await as_stored(client, event)
    except (RefusedError, ExpiredError, ValueError):
        return None
    return event
