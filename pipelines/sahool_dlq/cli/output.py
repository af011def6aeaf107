"""Printing for people: nothing that came from a message can steer the terminal."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sahool_dlq.cli.layout import GAP, Column, fitting, measure, widths
from sahool_dlq.deadletter.sanitize import printable
from sahool_dlq.json_text import json_text

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """A report as one line of JSON on standard output, at once: see `json_text`."""
    print(json_text(value), flush=True)


def safe(text: object) -> str:
    """A value from a message, without control characters and markup."""
    return escape(printable(str(text)))


def print_line(markup: str) -> None:
    """One line: cut at a terminal's edge, whole where the output is no terminal."""
    if console.is_terminal:
        console.print(markup, no_wrap=True, overflow="ellipsis")
    else:
        console.print(markup, soft_wrap=True)


def room() -> int | None:
    """How many columns the terminal has; None where the output is no terminal: nothing is cut."""
    return console.width if console.is_terminal else None


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    note: str = "",
    *,
    drop: Sequence[str] = (),
) -> None:
    """A table; numbers stand right. On a terminal it fits, and a line says what was left out.

    `drop` names the columns to be left out, the first one first, then come the last ones. Numbers,
    times, ids and names are never cut; texts are wrapped.
    """
    rows = [list(row) for row in rows]
    texts = [[cell(value) for value in row] for row in rows]
    every = measure(columns, rows, [[_unescaped(text) for text in row] for row in texts])
    shown = fitting(every, room(), drop)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for column, width in zip(shown, widths(shown, room()), strict=True):
        table.add_column(
            safe(column.name),
            justify="right" if column.is_number else "left",
            style="cyan" if column.index == 0 else None,
            no_wrap=not column.is_text,
            width=width,
            overflow="fold",
        )
    for row in texts:
        table.add_row(*(row[column.index] for column in shown))
    if title:
        console.print(title, style="bold", soft_wrap=True)  # a table's own is broken at its width
    print_drawn(table, shown)
    if note:
        console.print(f"[dim]{note}[/dim]", soft_wrap=not console.is_terminal)
    left_out = [column.name for column in every if column not in shown]
    if left_out:
        names = safe(", ".join(left_out))
        console.print(f"[dim]Columns that do not fit: {names}. A pipe or --json has all.[/dim]")
    console.print()


def print_drawn(table: Table, columns: Iterable[Column]) -> None:
    """Print a table of these columns: as wide as it is, where the output is no terminal."""
    width = sum(column.width + GAP for column in columns)
    target = console if room() else Console(file=console.file, width=max(width, 1), emoji=False)
    target.print(table)


def _unescaped(text: str) -> str:
    """What a cell's markup shows."""
    return Text.from_markup(text, emoji=False).plain


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


class Advance(Protocol):
    """Moves a progress bar to `done`, of `total` where that is known."""

    def __call__(self, done: float, total: float | None = None) -> None: ...


@contextmanager
def progress(description: str, *, is_shown: bool = True) -> Iterator[Advance]:
    """A bar on standard error, silent where that is no terminal."""
    columns = (TextColumn(description), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    is_silent = not (is_shown and errors.is_terminal)
    with Progress(*columns, console=errors, transient=True, disable=is_silent) as bar:
        task = bar.add_task(description, total=None)

        def advance(done: float, total: float | None = None) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


def spinner(description: str) -> AbstractContextManager[Any]:
    """Says that work goes on, where there is a terminal."""
    return errors.status(description)


class PlainHandler(logging.Handler):
    """Warnings of the library, in one line, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        errors.print(f"[yellow]{safe(record.getMessage())}[/yellow]", soft_wrap=True)


def log_plainly() -> None:
    """Show the warnings of the library so, but not those of channels, which verbs tell of."""
    logging.basicConfig(level=logging.WARNING, handlers=[PlainHandler()])
    logging.getLogger("apprise").setLevel(logging.CRITICAL)


def warn_undrained(count: int) -> None:
    """Say that some of the events that are taken for successes may be failures."""
    if count:
        errors.print(
            f"[yellow]{count:,} messages of the log are not drained yet: some of the"
            " successes may be failures. Run `dlq drain`.[/yellow]",
            soft_wrap=True,
        )
