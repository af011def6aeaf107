"""`dlq sql`."""

import sys
from pathlib import Path

import click
import pyarrow as pa

from sahool_dlq.cli.output import console
from sahool_dlq.cli.results import FORMS, print_expanded, print_result, write_parquet
from sahool_dlq.cli.verb import known_lake, verb, wants_json
from sahool_dlq.errors import QueryError
from sahool_dlq.jobs.lake_views import answer
from sahool_dlq.settings import Settings

_MOST_ROWS = 100


@verb
@click.argument("statement", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="table",
    show_default=True,
    help="output format",
)
@click.option(
    "-x", "--expanded", "is_expanded", is_flag=True, help="one block per row, with all columns"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="the file to write, with --format parquet",
)
@click.option(
    "--limit",
    type=click.IntRange(0),
    help="maximum number of rows [default: all; 100 as a table on a terminal]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60,
    show_default=True,
    help="time limit",
)
def command(
    settings: Settings,
    statement: str | None,
    form: str,
    is_expanded: bool,
    output: Path | None,
    limit: int | None,
    seconds: float,
) -> None:
    """Query the lake in SQL (DuckDB), read-only.

    STATEMENT is one of SELECT, FROM, WITH, VALUES, PIVOT, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN.
    Without it, statements are read from standard input, on a terminal from a prompt with history
    and completion.
    `dlq tables` lists tables, views and marts with their columns.

    On a terminal, a table shows the columns that fit and says how many are left out. A pipe gets
    all columns.
    """
    known_lake(settings)
    form = "json" if wants_json() else form
    if (form == "parquet") < (output is not None):
        raise click.UsageError("--output is for --format parquet; redirect anything else: > FILE.")
    if statement is None and sys.stdin.isatty():
        if form == "parquet":
            raise click.UsageError("--format parquet needs a statement.")
        from sahool_dlq.cli.sql_prompt import prompt

        prompt(settings, form, seconds, _MOST_ROWS if limit is None else limit, is_expanded)
        return
    if statement is None:
        statement = sys.stdin.read()
    if not statement.strip():
        raise QueryError("No statement was given: dlq sql 'SELECT count(*) FROM failures'.")
    if limit is None and form == "table" and console.is_terminal:
        limit = _MOST_ROWS
    if form == "parquet":
        write_parquet(answer(settings, statement, limit, seconds), output)
        return
    show(settings, statement, form, seconds, limit, is_expanded)


def show(
    settings: Settings,
    statement: str,
    form: str,
    seconds: float,
    limit: int | None,
    is_expanded: bool,
) -> None:
    """Print what a statement says, and whether there is more; raises QueryError."""
    # One row more than is shown tells whether there are more.
    wanted = limit + 1 if limit is not None and form == "table" else limit
    table: pa.Table = answer(settings, statement, wanted, seconds)
    shown = table if limit is None else table.slice(0, limit)
    if is_expanded and form == "table":
        print_expanded(shown)
    else:
        print_result(shown, form)
    if shown.num_rows < table.num_rows:
        console.print("[dim]There are more rows: raise --limit[/dim]")
