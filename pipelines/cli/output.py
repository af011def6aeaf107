"""Printing for people: nothing that came from a message can steer the terminal."""

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipelines.deadletter.sanitize import UNPRINTABLE, printable

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    text = json.dumps(value, default=_as_json, ensure_ascii=False)
    print(UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _as_json(value: object) -> int | float | str:
    if isinstance(value, Decimal):  # DuckDB's sums of integers
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def safe(text: object) -> str:
    """A value from a message, without control characters and markup."""
    return escape(printable(str(text)))


def print_line(markup: str) -> None:
    """One line, cut at the terminal's edge."""
    console.print(markup, no_wrap=True, overflow="ellipsis")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = ""
) -> None:
    """A table; numbers stand right, long texts are cut at the terminal's edge."""
    rows = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        is_number = all(isinstance(row[index], int | float) for row in rows) and bool(rows)
        table.add_column(
            column,
            justify="right" if is_number else "left",
            style="cyan" if index == 0 else None,
            no_wrap=is_number or index == 0,
            overflow="ellipsis",
        )
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console.print(title, style="bold", soft_wrap=True)  # a table's own is broken at its width
    console.print(table)
    if note:
        console.print(f"[dim]{note}[/dim]")
    console.print()


def cell(value: object) -> str:
    """One value as people read it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    return safe(value)


def progress_bar(description: str) -> Progress:
    """A bar on standard error, silent where that is no terminal."""
    return Progress(
        TextColumn(description),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def spinner(description: str) -> AbstractContextManager[Any]:
    """Says that work goes on, where there is a terminal."""
    return errors.status(description)


class PlainHandler(logging.Handler):
    """Warnings of the library, in one line, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        errors.print(f"[yellow]{safe(record.getMessage())}[/yellow]", soft_wrap=True)
