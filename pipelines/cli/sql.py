"""`dlq sql`."""

import click

from pipelines.cli.output import console, print_json, print_table
from pipelines.cli.verb import verb
from pipelines.jobs import query
from pipelines.settings import Settings

_MOST_ROWS = 100


@verb
@click.argument("statement")
@click.option(
    "--limit", type=click.IntRange(0), help="most rows to read [default: 100; with --json all]"
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60,
    show_default=True,
    help="how long it may take",
)
def command(
    settings: Settings, is_json: bool, statement: str, limit: int | None, seconds: float
) -> None:
    """Run one SELECT over the lake (DuckDB), which can change nothing.

    Tables: dead_letters, case_events, service_totals; views: failures, cases, redrives, …; and
    every mart as mart_<name>. Example: dlq sql "SELECT service, count(*) FROM failures GROUP BY 1"
    """
    if is_json:
        frame = query(settings, statement, limit, seconds)
        print_json({"columns": frame.columns, "rows": frame.rows()})
        return
    limit = _MOST_ROWS if limit is None else limit
    frame = query(settings, statement, limit + 1, seconds)
    print_table("", frame.columns, frame.head(limit).rows())
    if frame.height > limit:
        console.print("[dim]There are more rows: --limit[/dim]")
