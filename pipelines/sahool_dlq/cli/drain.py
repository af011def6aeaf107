"""`dlq drain`."""

import asyncio

import click

from sahool_dlq.cli.output import console, print_json, progress_bar
from sahool_dlq.cli.verb import verb
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings


@verb
@click.option(
    "--adopt-lake",
    "is_lake_adopted",
    is_flag=True,
    help="use this lake although another platform made it",
)
def command(settings: Settings, is_json: bool, is_lake_adopted: bool) -> None:
    """Copy new dead letters from the stream to the lake and Postgres, exactly once.

    Safe to run and to kill at any time: the next run continues where both sinks are.
    """
    with progress_bar("Draining") as bar:
        task = bar.add_task("drain", total=None)
        report = asyncio.run(
            drain_log(
                settings,
                lambda done, total: bar.update(task, completed=done, total=total),
                is_lake_adopted=is_lake_adopted,
            )
        )
    if is_json:
        print_json(report.as_dict())
        return
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
