"""The rows that `dlq sql` found, in each form: for people whole and safe, for programs exact."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from sahool_dlq.analysis.report.section import escaped
from sahool_dlq.cli.layout import GAP, Column, fitting, measure
from sahool_dlq.cli.output import console, print_drawn, room, safe
from sahool_dlq.cli.verb import tell
from sahool_dlq.deadletter.sanitize import UNPRINTABLE, printable
from sahool_dlq.errors import QueryError

__all__ = ["FORMS", "print_expanded", "print_result", "write_parquet"]

FORMS = ("table", "csv", "json", "jsonl", "parquet", "md")
_WIDEST_TEXTS = (40, 24)  # of a cell on a terminal: the first with which all columns fit


def print_result(table: pa.Table, form: str) -> None:
    """Print rows as a table, CSV, JSON, a line of JSON for each, or Markdown.

    JSON is exact. Elsewhere characters that steer a terminal are U+FFFD.
    """
    if form == "json":
        tell({"columns": table.column_names, "rows": list(_rows(table))})
    elif form == "jsonl":
        names = _distinct(table.column_names)
        for row in _rows(table):
            tell(dict(zip(names, row, strict=True)))
    elif form == "csv":
        _print_csv(table)
    elif form == "md":
        _print_markdown(table)
    else:
        _print_table(table)


def write_parquet(table: pa.Table, place: Path | None) -> None:
    """Write Parquet to a file, or to standard output, which is no terminal.

    An interval is written as its text, which Parquet has no type for that others read; of names
    that repeat, the second is name_1. Raises QueryError where it cannot be written.
    """
    for index, field in enumerate(table.schema):
        if pa.types.is_interval(field.type):
            texts = [None if v is None else _text(v) for v in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    table = table.rename_columns(_distinct(table.column_names))
    if place is None and sys.stdout.isatty():
        raise QueryError("Parquet cannot be printed on a terminal: add --output FILE, or > FILE.")
    try:
        target: BinaryIO | Path = sys.stdout.buffer if place is None else place
        pq.write_table(table, target)
    except OSError as error:
        raise QueryError(f"{place} was not written: {error.strerror}.") from error


def _rows(table: pa.Table) -> Iterator[list[Any]]:
    for batch in table.to_batches():
        columns = [column.to_pylist() for column in batch.columns]
        for row in zip(*columns, strict=True):
            yield [_plain(value) for value in row]


def _plain(value: Any) -> Any:
    """The value with nothing in it that JSON has no word for."""
    if isinstance(value, pa.MonthDayNano | bytes):
        return _text(value)
    if isinstance(value, Decimal) and not value.is_finite():
        return str(value)
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) for item in value):  # a map
            return {str(name): _plain(item) for name, item in value}
        return [_plain(item) for item in value]
    return value


def _text(value: Any) -> str:
    """A value as DuckDB's own shell shows it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if isfinite(value) else str(value)
    if isinstance(value, pa.MonthDayNano):
        return _interval(value)
    if isinstance(value, bytes):
        return "".join(f"\\x{byte:02X}" for byte in value)
    if isinstance(value, datetime):
        text = value.isoformat(" ")
        return text.removesuffix(":00") if value.tzinfo else text
    if isinstance(value, dict | list):
        return json.dumps(_plain(value), ensure_ascii=False, default=str)
    return str(value)


def _interval(value: pa.MonthDayNano) -> str:
    years, months = divmod(abs(value.months), 12)
    sign = -1 if value.months < 0 else 1
    counts = {"year": sign * years, "month": sign * months, "day": value.days}
    parts = [f"{n} {unit}{'' if abs(n) == 1 else 's'}" for unit, n in counts.items() if n]
    micros = (
        value.nanoseconds // 1_000 if value.nanoseconds >= 0 else -(-value.nanoseconds // 1_000)
    )
    if micros or not parts:
        seconds, rest = divmod(abs(micros), 1_000_000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        fraction = f".{rest:06}".rstrip("0") if rest else ""
        parts.append(f"{'-' if micros < 0 else ''}{clock}{fraction}")
    return " ".join(parts)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, those that repeat with a number as DuckDB gives it: a, a_1."""
    found: list[str] = []
    for name in names:
        fresh, number = name, 0
        while fresh in found:
            number += 1
            fresh = f"{name}_{number}"
        found.append(fresh)
    return found


def _print_csv(table: pa.Table) -> None:
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in _rows(table):
        writer.writerow("" if value is None else _text(value) for value in row)
    # Line ends are a CSV's own.
    print(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", page.getvalue()), end="")


def _print_markdown(table: pa.Table) -> None:
    lines = [table.column_names, ["---"] * table.num_columns]
    lines += [[_text(value) for value in row] for row in _rows(table)]
    for number, line in enumerate(lines):
        cells = line if number == 1 else [escaped(printable(text)) for text in line]
        print(f"| {' | '.join(cells)} |")


def print_expanded(table: pa.Table) -> None:
    """Each row by itself: a line for each column, nothing cut."""
    width = max((len(name) for name in table.column_names), default=0)
    for number, row in enumerate(_rows(table), 1):
        console.print(f"[bold]Row {number:,}[/bold]")
        for name, value in zip(table.column_names, row, strict=True):
            shown = f"[dim]{_text(value)}[/dim]" if value is None else safe(_text(value))
            label = safe(name) + " " * (width - len(name))
            console.print(f"  [cyan]{label}[/cyan]  {shown}", soft_wrap=True)
    console.print(_count(table.num_rows, "row"))


def _print_table(table: pa.Table) -> None:
    rows = list(_rows(table))
    if table.column_names == ["explain_key", "explain_value"]:  # a drawing of many lines
        for _, plan in rows:
            console.print(safe(plan), soft_wrap=True)
        return
    texts = [[_text(value).replace("\n", " ") for value in row] for row in rows]
    every = measure(table.column_names, rows, texts)
    space = room()
    shown = every
    if space is not None:
        for widest in _WIDEST_TEXTS:
            shown = fitting([_capped(column, widest) for column in every], space)
            if len(shown) == len(every):
                break
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for column in shown:
        drawn.add_column(
            safe(column.name),
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=column.least,
            max_width=column.width,
            header_style="cyan",
        )
    for row, values in zip(texts, rows, strict=True):
        drawn.add_row(
            *("[dim]NULL[/dim]" if values[c.index] is None else safe(row[c.index]) for c in shown)
        )
    print_drawn(drawn, shown)
    counts = f"{_count(table.num_rows, 'row')}, {_count(len(every), 'column')}"
    is_cut = any(column.width < every[column.index].width for column in shown)
    if len(shown) < len(every) or is_cut:
        shown_count = f", {len(shown):,} shown" if len(shown) < len(every) else ""
        hint = f"{counts}{shown_count}: -x shows whole rows, a pipe all columns."
        console.print(f"[dim]{hint}[/dim]")
    elif space:
        console.print(f"[dim]{counts}.[/dim]")


def _capped(column: Column, widest: int) -> Column:
    """The column no wider than a terminal has room for; what must not be cut stays."""
    width = max(column.least, min(column.width, widest))
    return Column(column.index, column.name, width, width, column.is_number)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
