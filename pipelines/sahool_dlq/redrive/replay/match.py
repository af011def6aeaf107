"""Which stored events meet a condition: with the values that a dead letter of them would have.

The condition is evaluated by PostgreSQL, as that of a redrive, on the redacted event. Nothing is
stored there.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.envelope.encode import encode_dead_letter
from sahool_dlq.deadletter.envelope.exact import BUILT_IN
from sahool_dlq.deadletter.message import LogMessage, time_of_ns
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.events.failure import event_fields, parse_body
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.jetstream.stored import StoredMessage

__all__ = ["matching", "redacted_letters"]

_TEXTS = (
    *("original_subject", "event_type", "event_id", "source_service"),
    *("tenant_id", "field_id", "farmer_id"),
)
_JSON = ("original_data", "original_headers")
_NAMES = ", ".join(_TEXTS + _JSON)
_READ = ", ".join([*_TEXTS, *(f"{name}::jsonb AS {name}" for name in _JSON)])
_ARRAYS = ", ".join(["%s::text[]"] * len(_TEXTS + _JSON))
_EVENTS = f"(SELECT n, {_READ} FROM unnest(%s::bigint[], {_ARRAYS}) AS u (n, {_NAMES}))"  # noqa: S608


def matching(
    connection: Connection[Any],
    redactor: Redactor,
    events: Sequence[StoredMessage],
    condition: tuple[str, list[Any]],
) -> list[StoredMessage]:
    """The events that meet a condition of `compile_where`, in their order."""
    frame = redacted_letters(redactor, events)
    columns = [frame[name].to_list() for name in ("dlq_sequence", *_TEXTS, *_JSON)]
    sql, values = condition
    rows = connection.execute(
        f"SELECT n FROM {_EVENTS} AS f WHERE {sql} ORDER BY n",  # noqa: S608
        [*columns, *values],
    )
    return [events[number - 1] for (number,) in rows]


def redacted_letters(
    redactor: Redactor, events: Sequence[StoredMessage], decoders: Decoders = BUILT_IN
) -> pl.DataFrame:
    """LETTER_SCHEMA: what a drain would store of dead letters of these events, in their order.

    `dlq_sequence` counts them from 1.
    """
    letters = [_letter(number, event) for number, event in enumerate(events, 1)]
    return redactor.redact_frame(decode_all(letters, "", "", decoders))


def _letter(number: int, event: StoredMessage) -> LogMessage:
    """An event in the form from which the drain reads its columns."""
    is_json, body = parse_body(event.data)
    delivery = Delivery("", "", 1, event.sequence, event.timestamp_ns, 0)
    fields = event_fields(
        subject=event.subject, headers=event.headers, body=body, delivery=delivery
    )
    at = time_of_ns(event.timestamp_ns).isoformat()
    fields |= {"error_type": "", "error_message": "", "dlq_timestamp": at}
    data = encode_dead_letter(fields, event.data, is_json)
    return LogMessage(event.subject, number, event.timestamp_ns, data)
