"""The complete job that reads one raw event; the reader is in the audit before anything is read.

Raw events need the right to read `failed_payloads` (role `dlq_payloads`), whether they come from
there or from a stream, for which NATS also checks rights.
"""

import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client
from psycopg import Connection
from psycopg.rows import dict_row

from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.deadletter.body import text_of
from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.deadletter.sanitize import parse_json
from sahool_dlq.errors import QueryError, RedriveError, UnknownNameError
from sahool_dlq.reproduce.raw import AT_ONCE, PLACE, Missing, Place, RawEvent, RawEvents
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.audit import audit

__all__ = ["RawReading", "decoded_body", "raw_event", "reading_raw", "redacted_event"]

_ID = re.compile(r"[0-9a-f-]{1,36}")
_DIGITS = 32


class RawReading:
    """Reads raw events, and writes the audit first; the connections may also be used otherwise."""

    def __init__(
        self,
        client: Client,
        connection: Connection[Any],
        events: RawEvents,
        action: str,
        actor: str,
        reason: str,
    ) -> None:
        self.client = client
        self.connection = connection
        self._events = events
        self._action = action
        self._actor = actor
        self._reason = reason or None
        self._id = str(uuid.uuid4())  # of what one command reads

    async def each(
        self,
        places: Sequence[Place],
        detail: Mapping[str, Any] | None = None,
        *,
        are_failures: bool = True,
    ) -> AsyncIterator[RawEvent | Missing]:
        """The event of each failure, or success, in order; only a few are in memory at a time.

        `detail` goes into the audit, and must be redacted. Raises as `RawEvents.read` does.
        """
        audit(
            self.connection,
            self._action,
            actor=self._actor,
            reason=self._reason,
            batch_id=self._id,
            failure_ids=[each.failure_id for each in places] if are_failures else (),
            detail={"failures" if are_failures else "successes": len(places), **(detail or {})},
        )
        for start in range(0, len(places), AT_ONCE):
            for found in await self._events.read(places[start : start + AT_ONCE]):
                yield found


@asynccontextmanager
async def reading_raw(
    settings: Settings, action: str, *, actor: str, reason: str = ""
) -> AsyncIterator[RawReading]:
    """Raw events for users who may read payloads; `action` is the audit's action.

    Raises DLQError if this login may not read payloads or not write the audit, and as `connected`
    does.
    """
    with open_postgres(settings) as connection:
        connection.execute("SELECT data FROM failed_payloads LIMIT 0")  # the right to payloads
        async with open_nats(settings, "dlq") as client:
            events = await RawEvents.of(settings, client, connection)
            said = settings.masked(actor), settings.masked(reason)
            yield RawReading(client, connection, events, action, *said)


async def raw_event(settings: Settings, prefix: str, *, actor: str, reason: str = "") -> RawEvent:
    """The event of a failure, by its id or unique first digits.

    Raises UnknownNameError for none, QueryError for several, RedriveError if the event no longer
    exists, and as `reading_raw` does.
    """
    with open_postgres(settings) as connection:
        place = Place(*_found(connection, prefix, PLACE))
    async with reading_raw(settings, "payload.read", actor=actor, reason=reason) as reading:
        [found] = [each async for each in reading.each([place])]
    if isinstance(found, Missing):
        raise RedriveError(f"The event of {found.failure_id} cannot be read: {found.reason}.")
    return found


def decoded_body(settings: Settings, event: RawEvent) -> tuple[str | None, str]:
    """The format of a raw event's body, and its JSON, unmasked.

    The format is None if the body is JSON itself. Raises QueryError if it cannot be decoded.
    """
    try:
        decoders = settings.decoders(settings.rules)
        opened = decoders.opened(event.body, event.subject, event.headers)
        text, _ = text_of(opened.json)
        parse_json(opened.json)
    except ValueError as error:
        reason = str(error) if isinstance(error, BodyError) else "it is not JSON"
        raise QueryError(
            f"The body of {event.failure_id} cannot be decoded: {reason}. Its bytes: --raw."
        ) from error
    return opened.format, text


def redacted_event(settings: Settings, prefix: str) -> dict[str, Any]:
    """The stored event of a failure, masked; raises as `raw_event` for its id."""
    columns = (
        "f.id::text AS failure_id, f.original_subject AS subject, f.original_stream AS stream,"
        " f.original_sequence AS sequence, f.event_id, f.original_headers AS headers,"
        " f.payload_encoding, f.body_format, f.body_error, f.original_data::text AS body"
    )
    with open_postgres(settings) as connection:
        failure_id = _found(connection, prefix, "f.id::text")[0]
        row = (
            connection.cursor(row_factory=dict_row)
            .execute(f"SELECT {columns} FROM failed_events f WHERE f.id = %s", [failure_id])  # noqa: S608  (our own names, bound values)
            .fetchone()
        )
    assert row is not None
    return row


def _found(connection: Connection[Any], prefix: str, columns: str) -> tuple[Any, ...]:
    digits = prefix.lower().replace("-", "")
    rows: list[tuple[Any, ...]] = []
    if _ID.fullmatch(prefix.lower()) and 0 < len(digits) <= _DIGITS:
        rows = connection.execute(
            f"SELECT {columns} FROM failed_events f"  # noqa: S608  (our own names, bound values)
            " WHERE f.id BETWEEN %s::uuid AND %s::uuid LIMIT 2",
            [digits.ljust(_DIGITS, "0"), digits.ljust(_DIGITS, "f")],
        ).fetchall()
    if len(rows) > 1:
        raise QueryError(f"Several failures begin with {prefix!r}: give more of the id.")
    if rows:
        return rows[0]
    group = connection.execute(
        "SELECT group_id FROM failed_events WHERE starts_with(group_id, %s) LIMIT 1",
        [prefix.lower()],
    ).fetchone()
    if group:
        raise UnknownNameError(
            f"{prefix!r} is a group: `dlq export --group {prefix}` has the events of its failures,"
            f" and `dlq show {prefix}` the latest."
        )
    raise UnknownNameError(
        f"No failure has an id that begins with {prefix!r}: `dlq show GROUP` shows ids, and `dlq "
        "drain` reads new ones."
    )
