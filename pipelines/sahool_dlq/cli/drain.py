"""`dlq drain`."""

import asyncio

import click

from sahool_dlq.cli.output import console, progress
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.drain.run import DrainReport
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings


@verb
@click.option(
    "--adopt-lake",
    "is_lake_adopted",
    is_flag=True,
    help="use this lake although another platform made it",
)
def command(settings: Settings, is_lake_adopted: bool) -> Answer[DrainReport]:
    """Copy new dead letters from the stream to the lake and Postgres, exactly once.

    Safe to run and to kill at any time: the next run continues where both sinks are.
    """
    with progress("Draining") as advance:
        report = asyncio.run(drain_log(settings, advance, is_lake_adopted=is_lake_adopted))
    return Answer(report, _show)


def _show(report: DrainReport) -> None:
    console.print(
        f"Drained {report.drained:,} messages of {report.stream} in {report.seconds:.1f} s,"
        f" up to sequence {report.last_sequence:,}."
    )
    if report.quarantined:
        console.print(
            f"{report.quarantined:,} could not be read as dead letters. They are stored, with the"
            " reason in parse_error."
        )
    for note in report.notes:
        console.print(f"[bold red]{note}[/bold red]")
