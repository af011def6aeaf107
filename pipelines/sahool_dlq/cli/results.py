"""The rows that `dlq sql` found, in each form: for people whole and safe, for programs exact."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from sahool_dlq.analysis.report.section import escaped
from sahool_dlq.cli.layout import GAP, Column, fitting, measure
from sahool_dlq.cli.output import console, print_drawn, room, safe
from sahool_dlq.cli.verb import tell
from sahool_dlq.deadletter.sanitize import UNPRINTABLE, printable
from sahool_dlq.errors import QueryError
from sahool_dlq.stores.lake.exact import as_text, json_rows

__all__ = ["FORMS", "print_expanded", "print_result", "write_parquet"]

FORMS = ("table", "csv", "json", "jsonl", "parquet", "md")
_WIDEST_TEXTS = (40, 24)  # of a cell on a terminal: the first with which all columns fit


def print_result(table: pa.Table, form: str) -> None:
    """Print rows as a table, CSV, JSON, a line of JSON for each, or Markdown.

    JSON is exact. Elsewhere characters that steer a terminal are U+FFFD.
    """
    if form == "json":
        tell({"columns": table.column_names, "rows": list(json_rows(table))})
    elif form == "jsonl":
        names = _distinct(table.column_names)
        for row in json_rows(table):
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
            texts = [None if v is None else as_text(v) for v in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    table = table.rename_columns(_distinct(table.column_names))
    if place is None and sys.stdout.isatty():
        raise QueryError("Parquet cannot be printed on a terminal: add --output FILE, or > FILE.")
    try:
        target: BinaryIO | Path = sys.stdout.buffer if place is None else place
        pq.write_table(table, target)
    except OSError as error:
        raise QueryError(f"{place} was not written: {error.strerror}.") from error


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
    for row in json_rows(table):
        writer.writerow("" if value is None else as_text(value) for value in row)
    # Line ends are a CSV's own.
    print(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", page.getvalue()), end="")


def _print_markdown(table: pa.Table) -> None:
    lines = [table.column_names, ["---"] * table.num_columns]
    lines += [[as_text(value) for value in row] for row in json_rows(table)]
    for number, line in enumerate(lines):
        cells = line if number == 1 else [escaped(printable(text)) for text in line]
        print(f"| {' | '.join(cells)} |")


def print_expanded(table: pa.Table) -> None:
    """Each row by itself: a line for each column, nothing cut."""
    width = max((len(name) for name in table.column_names), default=0)
    for number, row in enumerate(json_rows(table), 1):
        console.print(f"[bold]Row {number:,}[/bold]")
        for name, value in zip(table.column_names, row, strict=True):
            shown = f"[dim]{as_text(value)}[/dim]" if value is None else safe(as_text(value))
            label = safe(name) + " " * (width - len(name))
            console.print(f"  [cyan]{label}[/cyan]  {shown}", soft_wrap=True)
    console.print(_count(table.num_rows, "row"))


def _print_table(table: pa.Table) -> None:
    rows = list(json_rows(table))
    if table.column_names == ["explain_key", "explain_value"]:  # a drawing of many lines
        for _, plan in rows:
            console.print(safe(plan), soft_wrap=True)
        return
    texts = [[as_text(value).replace("\n", " ") for value in row] for row in rows]
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
