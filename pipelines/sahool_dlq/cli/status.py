"""`dlq status`."""

import asyncio

from sahool_dlq.cli.output import console, print_table
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jobs.status import PlatformStatus, platform_status
from sahool_dlq.settings import Settings


@verb
def command(settings: Settings) -> Answer[PlatformStatus]:
    """Show the state of stream and sinks, open failures, outcomes of redrives, and gaps."""
    return Answer(asyncio.run(platform_status(settings)), _show)


def _show(status: PlatformStatus) -> None:
    console.print(
        f"Stream [bold]{status.stream}[/bold]: {status.messages:,} messages, sequences"
        f" {status.first_sequence:,} to {status.last_sequence:,}"
    )
    print_table(
        "",
        ["sink", "holds up to", "behind"],
        [
            (sink, sequence, max(status.last_sequence - sequence, 0))
            for sink, sequence in status.sinks.items()
        ],
    )
    print_table("Failures", ["status", "count"], status.failures.items())
    if status.redrives:
        print_table("Redrives", ["state", "count"], status.redrives.items())
    if status.unfounded:
        print_table(
            "Outcomes of redrives that the log does not know: they are ignored",
            ["kind", "count"],
            status.unfounded.items(),
        )
    for gap in status.gaps:
        console.print(f"[bold red]{gap}[/bold red]")
