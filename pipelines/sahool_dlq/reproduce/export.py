"""The failures of a selection as rows, in parts, for an export. Needs no drain.

A row has the columns of `--where` about a failure, and its event: masked as stored, or original.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from psycopg import Connection

from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.choose.where import COLUMNS
from sahool_dlq.reproduce.raw import PLACE, Missing, Place, RawEvent

__all__ = [
    "RAW_SCHEMA",
    "SCHEMA",
    "Batches",
    "raw_row",
    "selected_events",
    "selected_failures",
    "selected_places",
]

_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "number": pa.int64(),
    "time": pa.timestamp("us", "UTC"),
}
_ABOUT = {
    "failure_id": ("f.id::text", "text"),
    **{name: (column.sql, column.kind) for name, column in COLUMNS.items()},
    "stack_trace": ("f.stack_trace", "text"),
    "original_stream": ("f.original_stream", "text"),
    "original_sequence": ("f.original_sequence", "number"),
}
_EVENT = {
    "headers": ("f.original_headers::text", "text"),
    "payload_encoding": ("f.payload_encoding", "text"),
    "body": ("f.original_data::text", "text"),
}

SCHEMA = pa.schema([(name, _TYPES[kind]) for name, (_, kind) in (_ABOUT | _EVENT).items()])
"""Of a masked export; `headers` and `body` contain JSON."""
RAW_SCHEMA = pa.schema(
    [(name, _TYPES[kind]) for name, (_, kind) in _ABOUT.items()]
    + [
        ("headers", pa.string()),
        ("body", pa.binary()),
        ("source", pa.string()),  # stream | dead_letter
        ("missing", pa.string()),  # why there is neither body nor headers
    ]
)
"""Of an export of raw events; `headers` contains JSON: by name a text, or an array of texts."""

_FETCHED = 64  # masked rows at once
_PLACES = 1_000  # of which the audit has one row
_MOST_ROWS = 5_000
_MOST_BYTES = 8 << 20


def selected_failures(
    connection: Connection[Any], selection: Selection
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Rows of SCHEMA, oldest first, in parts; raises as `Selection.condition` does."""
    return _parts(connection, selection, _columns(_ABOUT | _EVENT), _FETCHED)


def selected_events(
    connection: Connection[Any], selection: Selection
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Of each failure, masked: id, subject, headers (parsed), payload_encoding, body_format, body
    (JSON).
    """
    columns = (
        "f.id::text, f.original_subject, f.original_headers, f.payload_encoding,"
        " f.body_format, f.original_data::text"
    )
    return _parts(connection, selection, columns, _FETCHED)


def selected_places(
    connection: Connection[Any], selection: Selection
) -> Iterator[list[tuple[Place, tuple[Any, ...]]]]:
    """The position of each failure's event, and the columns of RAW_SCHEMA about the failure."""
    width = len(Place._fields)
    for part in _parts(connection, selection, f"{PLACE}, {_columns(_ABOUT)}", _PLACES):
        yield [(Place(*row[:width]), row[width:]) for row in part]


def raw_row(about: tuple[Any, ...], found: RawEvent | Missing) -> tuple[Any, ...]:
    """A row of RAW_SCHEMA."""
    if isinstance(found, Missing):
        return (*about, None, None, None, found.reason)
    headers = json.dumps(dict(found.headers), ensure_ascii=False)
    return (*about, headers, found.body, found.source, None)


def _columns(columns: dict[str, tuple[str, Any]]) -> str:
    return ", ".join(sql for sql, _ in columns.values())


def _parts(
    connection: Connection[Any], selection: Selection, columns: str, size: int
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Unfetched rows stay on the server."""
    condition, values = selection.condition()
    with connection.transaction(), connection.cursor(name="export") as cursor:
        cursor.execute(
            f"SELECT {columns} FROM failed_events f"  # noqa: S608  (our own names, bound values)
            f" WHERE f.status <> 'superseded' AND {condition}"
            " ORDER BY f.dlq_timestamp, f.id LIMIT %s",
            [*values, selection.limit],
        )
        while part := cursor.fetchmany(size):
            yield part


class Batches:
    """Combines rows into batches of limited count and size."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []
        self._size_bytes = 0

    def add(self, row: tuple[Any, ...]) -> pa.RecordBatch | None:
        """The rows so far if they are enough for one batch."""
        self._rows.append(row)
        self._size_bytes += sum(len(value) for value in row if isinstance(value, str | bytes))
        is_full = len(self._rows) >= _MOST_ROWS or self._size_bytes >= _MOST_BYTES
        return self.rest() if is_full else None

    def rest(self) -> pa.RecordBatch | None:
        """The remaining rows; None if there are none."""
        rows, self._rows, self._size_bytes = self._rows, [], 0
        if not rows:
            return None
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*rows, strict=True), self._schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)
