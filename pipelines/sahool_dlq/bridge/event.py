"""The event of an advisory, and what is known if its stream no longer has it."""

import asyncio
from datetime import datetime

from nats.aio.client import Client
from nats.js.errors import APIError

from sahool_dlq.bridge.advisory import Advisory, nanoseconds, read_advisory
from sahool_dlq.jetstream.api import domain_of
from sahool_dlq.jetstream.stored import StoredMessage, stored_message
from sahool_dlq.jetstream.streams import GIVEN_UP

_NO_STREAM = 10059  # the server's code for "stream not found"


async def event_of(
    connection: Client, stream: str, sequence: int, told_at: datetime
) -> tuple[StoredMessage | None, datetime | None]:
    """The event that the server or a dead letter named at that time.

    If it is gone, the creation time of its stream, if that still exists.
    """
    try:
        event = await stored_message(connection, stream, sequence)
        # Is it another event with its sequence, in a recreated stream? Clocks may differ, so the
        # stream's own age decides.
        if event is not None and event.timestamp_ns <= nanoseconds(told_at):
            return event, None
        created = (await connection.jetstream().stream_info(stream)).created
    except APIError as error:
        if error.err_code == _NO_STREAM:
            return None, None
        raise
    if created is None or created > told_at:
        return None, None
    return event, created


class GivenUp:
    """Events that were given up before they were terminated, read while advisories arrive."""

    def __init__(self, advisories: str) -> None:
        self._advisories = advisories
        self._known: dict[tuple[str, str], dict[int, datetime]] = {}
        self._next: dict[tuple[str, str], int] = {}
        self._lock = asyncio.Lock()

    async def has(
        self, connection: Client, terminated: Advisory, stream_created: datetime | None
    ) -> bool:
        """Whether an earlier advisory reports that this consumer gave up this event."""
        key = terminated.stream, terminated.consumer
        async with self._lock:
            await self._read_on(connection, key)
        said = self._known[key].get(terminated.stream_seq)
        if said is None or said > terminated.timestamp:
            return False
        return stream_created is None or said >= stream_created

    async def _read_on(self, connection: Client, key: tuple[str, str]) -> None:
        subject = ".".join((GIVEN_UP, *key))
        known = self._known.setdefault(key, {})
        while stored := await stored_message(
            connection, self._advisories, self._next.get(key, 1), subject
        ):
            self._next[key] = stored.sequence + 1
            try:
                advisory = read_advisory(stored.data, domain_of(connection))
            except ValueError:
                continue
            known[advisory.stream_seq] = advisory.timestamp
