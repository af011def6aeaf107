"""Writes exported rows to a file, part by part: JSON lines, CSV, Parquet, Arrow.

JSON lines, Parquet and Arrow are exact. CSV is for spreadsheets, which run cells that look like a
formula: such a cell gets an apostrophe before it, and every cell is quoted.
"""

import base64
import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, BinaryIO, Literal, Protocol, cast

import msgspec
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from sahool_dlq.deadletter.sanitize import UNPRINTABLE

__all__ = ["FORMATS", "Format", "Writer", "is_binary", "no_formula", "writer"]

Format = Literal["jsonl", "csv", "parquet", "arrow"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet", "arrow")

_FORMULA = frozenset("=+-@＝＋－＠\t\r\n")
"""Beginnings of formulas in spreadsheets (OWASP), also in full-width characters."""


_PROSE = frozenset({"error_message", "stack_trace"})
_INNER_FORMULA = re.compile(r"([;\t\n|][^\S\n]{0,64})(?=[=+\-@＝＋－＠])")
"""Where a spreadsheet would find one if it splits a cell in spite of its quotes."""


class Writer(Protocol):
    """Writes batches of one schema, and ends the file."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""

    def close(self) -> None:
        """Write the end of the file, which stays open."""


def is_binary(form: Format) -> bool:
    """Whether it must not be printed in a terminal."""
    return form in ("parquet", "arrow")


def writer(form: Format, schema: pa.Schema, file: BinaryIO) -> Writer:
    """A writer for rows of `schema` to an open file."""
    if form == "parquet":
        return _Parquet(schema, file)
    if form == "arrow":
        return _Arrow(schema, file)
    return _Csv(schema, file) if form == "csv" else _JsonLines(schema, file)


class _Parquet:
    def __init__(self, schema: pa.Schema, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _Arrow:
    """The streaming format of Arrow IPC, which can be piped."""

    def __init__(self, schema: pa.Schema, file: BinaryIO) -> None:
        self._writer = pyarrow.ipc.new_stream(cast("io.IOBase", file), schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _JsonLines:
    def __init__(self, schema: pa.Schema, file: BinaryIO) -> None:
        self._schema, self._file = schema, file

    def write(self, batch: pa.RecordBatch) -> None:
        for row in _texts(batch):
            for name in _JSON & row.keys():
                if row[name] is not None and pa.types.is_string(self._schema.field(name).type):
                    row[name] = msgspec.Raw(row[name].encode())  # numbers stay as they are spelt
            line = msgspec.json.encode(row).decode()
            line = UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
            self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        pass


_JSON = {"headers", "body"}  # where they are texts of the schema


class _Csv:
    def __init__(self, schema: pa.Schema, file: BinaryIO) -> None:
        self._file = file
        names = list(schema.names)
        if pa.types.is_binary(schema.field("body").type):
            names.insert(names.index("body") + 1, _ENCODING)
        self._print([names])

    def write(self, batch: pa.RecordBatch) -> None:
        self._print([[_cell(*each) for each in row.items()] for row in _texts(batch)])

    def close(self) -> None:
        pass

    def _print(self, rows: list[list[str]]) -> None:
        page = io.StringIO()
        csv.writer(page, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
        self._file.write(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", page.getvalue()).encode())


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if name in _PROSE and isinstance(value, str):
        value = _INNER_FORMULA.sub(r"\1'", value)
    return no_formula(value) if isinstance(value, str) else str(value)


def no_formula(text: str) -> str:
    """A cell of a CSV file that no spreadsheet treats as a formula."""
    return f"'{text}" if not _FORMULA.isdisjoint((text[:1], text.lstrip()[:1])) else text


_ENCODING = "body_encoding"


def _texts(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows without bytes: a raw body is text if possible, else base64, with a column that says
    which.
    """
    for row in batch.to_pylist():
        shown = _with_text(row) if pa.types.is_binary(batch.schema.field("body").type) else row
        yield {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in shown.items()
        }


def _with_text(row: dict[str, Any]) -> dict[str, Any]:
    body: bytes | None = row["body"]
    text, encoding = None, None
    if body is not None:
        try:
            text, encoding = body.decode(), "text"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(body).decode(), "base64"
    return {
        name: value
        for key, held in row.items()
        for name, value in (
            (("body", text), (_ENCODING, encoding)) if key == "body" else ((key, held),)
        )
    }
