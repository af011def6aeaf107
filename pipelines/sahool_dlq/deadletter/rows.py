"""The columns of decoded messages as Polars frames, for both sinks."""

import types
import typing
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.record import FIELDS, FINGERPRINT_COLUMNS

_TYPES: dict[object, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    datetime: pl.Datetime("us", "UTC"),
}


def _event_type(hint: object) -> pl.DataType:
    return _TYPES[typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint]


LETTER_SCHEMA = {name: _TYPES[field.kind] for name, field in FIELDS.items()}
EVENT_SCHEMA = {name: _event_type(hint) for name, hint in typing.get_type_hints(CaseEvent).items()}

DEAD_LETTER_SCHEMA = (
    LETTER_SCHEMA
    | {name: _TYPES[field.kind] for name, field in FINGERPRINT_COLUMNS.items()}
    | {"dlq_date": pl.Date()}
)
CASE_EVENT_SCHEMA = EVENT_SCHEMA | {"dlq_date": pl.Date()}
IDENTITY = {
    name: DEAD_LETTER_SCHEMA[name]
    for name in ("epoch", "dlq_sequence", "published_at", "failure_id")
}
"""The identity of a message of the log, and its failure."""
ERASED_SCHEMA: dict[str, pl.DataType] = {
    "life": pl.String(),  # an epoch without its fork
    "dlq_sequence": pl.Int64(),
    "published_at": pl.Datetime("us", "UTC"),
}
SERVICE_TOTALS_SCHEMA: dict[str, pl.DataType] = {
    "totals_sequence": pl.Int64(),
    "published_at": pl.Datetime("us", "UTC"),
    "service": pl.String(),
    "consumer": pl.String(),
    "started_at": pl.Datetime("us", "UTC"),
    "handled": pl.Int64(),
    "succeeded": pl.Int64(),
    "retried": pl.Int64(),
    "dead_lettered": pl.Int64(),
    "skipped": pl.Int64(),
    "consumer_version": pl.String(),
}


def frame_of(rows: Sequence[object], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Decoded messages as columns."""
    columns = {name: [getattr(row, name) for row in rows] for name in schema}
    return pl.DataFrame(columns, schema=schema)


__all__ = [
    "CASE_EVENT_SCHEMA",
    "DEAD_LETTER_SCHEMA",
    "ERASED_SCHEMA",
    "EVENT_SCHEMA",
    "IDENTITY",
    "LETTER_SCHEMA",
    "SERVICE_TOTALS_SCHEMA",
    "frame_of",
]
