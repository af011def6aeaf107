"""`dlq sql`."""

import click

from pipelines.cli.output import console, print_json, print_table
from pipelines.cli.verb import verb
from pipelines.jobs import query
from pipelines.settings import Settings


@verb
@click.argument("statement")
@click.option("--limit", default=100, show_default=True, help="most rows to print")
def command(settings: Settings, is_json: bool, statement: str, limit: int) -> None:
    """Run one SELECT over the lake (DuckDB), read-only.

    Tables: dead_letters, case_events, service_totals; views: failures, cases, redrives, …; and
    every mart as mart_<name>. Example: dlq sql "SELECT service, count(*) FROM failures GROUP BY 1"
    """
    frame = query(settings, statement)
    if is_json:
        print_json({"columns": frame.columns, "rows": frame.rows()})
        return
    print_table("", frame.columns, frame.head(limit).rows())
    if frame.height > limit:
        console.print(f"[dim]{frame.height - limit:,} more rows: --limit[/dim]")
