"""Rows of `failed_events` for PostgreSQL's binary COPY, encoded from columns in Rust."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import psycopg
import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder
from pgpq.encoders import LargeStringEncoderBuilder
from pgpq.schema import Jsonb
from psycopg import Connection, errors

from sahool_dlq.deadletter.record import (
    FIELDS,
    FINGERPRINT_COLUMNS,
    INT16_MAX,
    INT32_MAX,
    JSON_COLUMNS,
    TEXT_LIMITS,
    Field,
)
from sahool_dlq.deadletter.sanitize import clean_text

__all__ = ["FOLDED_SCHEMA", "copy_rows", "replace_rows", "update_rows"]

_TEXT, _TIME = pl.String(), pl.Datetime("us", "UTC")
FOLDED_SCHEMA: dict[str, pl.DataType] = {
    "status": _TEXT, "redrive_count": pl.Int32(), "redrive_trigger": _TEXT, "resolved_at": _TIME,
    "resolution_cause": _TEXT, "resolution_notes": _TEXT, "discarded_at": _TIME,
    "alert_sent": pl.Boolean(), "alert_sent_at": _TIME, "redrive_not_before": _TIME,
    "redrive_cap": pl.Int32(),
    "opening": pl.Int32(), "last_closed_at": _TIME, "last_closed_as": _TEXT,
    "handed_to": _TEXT, "announced": _TEXT, "resolved_in_version": _TEXT,
}  # fmt: skip
"""Columns with the values of the case."""


def _dtype(field: Field) -> pl.DataType:
    """As wide as the table's column, because COPY converts nothing."""
    if field.column.is_uuid:
        return pl.Binary()
    if field.kind is int:
        return _INTEGERS.get(field.column.limit, pl.Int64())
    return _TEXT if field.kind is str else _TIME


_INTEGERS: dict[int | None, pl.DataType] = {INT16_MAX: pl.Int16(), INT32_MAX: pl.Int32()}
_SCHEMA = {
    **{n: _dtype(f) for n, f in (FIELDS | FINGERPRINT_COLUMNS).items() if f.column.in_postgres},
    "seen_count": pl.Int32(),
    **FOLDED_SCHEMA,
}
"""The columns that are copied."""
_NAMES = ["id" if name == "failure_id" else name for name in _SCHEMA]
_COPY = "COPY {} ({}) FROM STDIN (FORMAT BINARY)"
_ASSIGNMENTS = ", ".join(
    f"{name} = f.{name} + r.{name}" if name == "seen_count" else f"{name} = r.{name}"
    for name in _NAMES
)
_REPLACE = f"UPDATE failed_events AS f SET {_ASSIGNMENTS} FROM reopened AS r WHERE f.id = r.id"  # noqa: S608  (our own names, bound values)
_TYPES = {_TEXT: "text", _TIME: "timestamptz", pl.Boolean(): "boolean", pl.Int32(): "integer"}
_FOLDED_ARRAYS = ", ".join(f"%s::{_TYPES[dtype]}[]" for dtype in FOLDED_SCHEMA.values())
_UPDATE = f"""
UPDATE failed_events AS f SET {", ".join(f"{name} = r.{name}" for name in FOLDED_SCHEMA)}
FROM unnest(%s::uuid[], {_FOLDED_ARRAYS}) AS r (id, {", ".join(FOLDED_SCHEMA)}) WHERE f.id = r.id
"""  # noqa: S608  (our own names, bound values)
_ROWS_AT_ONCE = 1_000  # how much of a batch is encoded before it is sent
_REFUSED = '{"refused":"by PostgreSQL; the raw bytes are in the stream"}'
# PostgreSQL's refusals of a value, whatever the sanitiser let through.
_REFUSALS = (psycopg.DataError, errors.ProgramLimitExceeded, errors.StatementTooComplex)


def copy_rows(connection: Connection[Any], rows: pl.DataFrame) -> None:
    """Copy dead letters, with the lake's columns and those of the case, into `failed_events`.

    Rows that PostgreSQL still refuses are stored with the reason instead of their JSON.
    """
    _copy(connection, rows.select(_column(name, dtype) for name, dtype in _SCHEMA.items()))


def replace_rows(connection: Connection[Any], rows: pl.DataFrame) -> None:
    """Replace existing rows, of cases that failed again.

    Through a temporary table, because a drain may not delete failures.
    """
    if rows.is_empty():
        return
    names = ", ".join(_NAMES)
    connection.execute(
        f"CREATE TEMPORARY TABLE reopened AS SELECT {names} FROM failed_events WITH NO DATA"  # noqa: S608  (our own names, bound values)
    )
    selected = rows.select(_column(name, dtype) for name, dtype in _SCHEMA.items())
    _copy(connection, selected, "reopened")
    connection.execute(_REPLACE)
    connection.execute("DROP TABLE pg_temp.reopened")


def update_rows(connection: Connection[Any], rows: Sequence[Sequence[Any]]) -> None:
    """Set the values of a case: rows of a failure's id and the values of `FOLDED_SCHEMA`."""
    if rows:
        connection.execute(_UPDATE, [list(column) for column in zip(*rows, strict=True)])


def _copy(connection: Connection[Any], rows: pl.DataFrame, table: str = "failed_events") -> None:
    """If PostgreSQL refuses some rows, find them by bisection and store them with a note."""
    if rows.is_empty():
        return
    command = _COPY.format(table, ", ".join(_NAMES))
    try:
        with connection.transaction(), connection.cursor().copy(command) as copy:
            encoder = _encoder()
            copy.write(encoder.write_header())
            for part in rows.iter_slices(_ROWS_AT_ONCE):
                for batch in _arrow(part).to_batches():
                    copy.write(encoder.write_batch(batch))
            copy.write(encoder.finish())
    except _REFUSALS as error:
        if rows.height > 1:
            half = rows.height // 2
            _copy(connection, rows[:half], table)
            _copy(connection, rows[half:], table)
        elif rows["original_data"].item() != _REFUSED:
            _copy(connection, _without_json(rows, error), table)
        else:
            raise


def _column(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.Binary:
        return column.str.replace_all("-", "", literal=True).str.decode("hex")
    if name in TEXT_LIMITS:
        return column.str.head(TEXT_LIMITS[name])
    return column.cast(dtype)


def _arrow(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())  # no string views: pgpq's JSON


def _encoder() -> ArrowToPostgresBinaryEncoder:
    infer = ArrowToPostgresBinaryEncoder.infer_encoder
    schema = _arrow(pl.DataFrame(schema=_SCHEMA)).schema
    builders = {
        field.name: LargeStringEncoderBuilder.new_with_output(field, Jsonb())
        if field.name in JSON_COLUMNS
        else infer(field)
        for field in schema
    }
    return ArrowToPostgresBinaryEncoder.new_with_encoders(schema, builders)


def _without_json(row: pl.DataFrame, error: psycopg.Error) -> pl.DataFrame:
    """The row without the values that PostgreSQL can refuse, and with the reason."""
    reason = f"PostgreSQL refused it: {clean_text(str(error)).splitlines()[0][:200]}"
    return row.with_columns(
        pl.lit(_REFUSED).alias("original_data"),
        pl.lit(None, _TEXT).alias("original_headers"),
        pl.lit(None, _TEXT).alias("attempts"),
        parse_error=pl.concat_str("parse_error", pl.lit(reason), separator="; ", ignore_nulls=True),
    )
