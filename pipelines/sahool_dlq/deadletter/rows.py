"""Batches of decoded messages as Polars frames: what both sinks take."""

import types
import typing
from collections.abc import Sequence
from datetime import datetime

import msgspec
import polars as pl

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.record import DeadLetter
from sahool_dlq.deadletter.redaction.redactor import Redactor

_TYPES: dict[type, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    datetime: pl.Datetime("us", "UTC"),
}


def _schema(struct: type[msgspec.Struct]) -> dict[str, pl.DataType]:
    def dtype(hint: object) -> pl.DataType:
        if isinstance(hint, types.UnionType):
            hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        return _TYPES[typing.cast("type", hint)]

    return {name: dtype(hint) for name, hint in typing.get_type_hints(struct).items()}


LETTER_SCHEMA = _schema(DeadLetter)
_EVENTS = _schema(CaseEvent)

DEAD_LETTER_SCHEMA = LETTER_SCHEMA | {
    "group_id": pl.String(),
    "parent_id": pl.String(),
    "fingerprint_version": pl.Int64(),
    "fingerprint_rules": pl.String(),
    "error_class": pl.String(),
    "template": pl.String(),
    "frames": pl.String(),
    "dlq_date": pl.Date(),
}
CASE_EVENT_SCHEMA = _EVENTS | {"dlq_date": pl.Date()}
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
}


def dead_letter_frame(
    letters: pl.DataFrame, redactor: Redactor, grouping: GroupingRules | None = None
) -> pl.DataFrame:
    """LETTER_SCHEMA, redacted, then fingerprinted on the redacted text; DEAD_LETTER_SCHEMA."""
    frame = add_fingerprint(redactor.redact_frame(letters), grouping).with_columns(_dlq_date())
    return frame.select(pl.col(name).cast(dtype) for name, dtype in DEAD_LETTER_SCHEMA.items())


def case_event_frame(events: Sequence[CaseEvent], redactor: Redactor) -> pl.DataFrame:
    """The case events, redacted; CASE_EVENT_SCHEMA."""
    frame = frame_of(events, _EVENTS)
    redacted = frame.with_columns(
        pl.col("body").map_elements(redactor.redact_json, return_dtype=pl.String),
        pl.col("reason", "actor", "parse_error").map_elements(
            redactor.redact_text, return_dtype=pl.String
        ),
    )
    return redacted.with_columns(_dlq_date())


def frame_of(rows: Sequence[msgspec.Struct], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Decoded messages as columns."""
    columns = {name: [getattr(row, name) for row in rows] for name in schema}
    return pl.DataFrame(columns, schema=schema)


def _dlq_date() -> pl.Expr:
    # Never a date from the payload: a producer could make ten thousand partitions.
    return pl.col("published_at").dt.date().alias("dlq_date")


__all__ = [
    "CASE_EVENT_SCHEMA",
    "DEAD_LETTER_SCHEMA",
    "ERASED_SCHEMA",
    "LETTER_SCHEMA",
    "SERVICE_TOTALS_SCHEMA",
    "case_event_frame",
    "dead_letter_frame",
    "frame_of",
]
