"""`dlq demo`."""

import asyncio
import time

import click

from sahool_dlq.cli.deploys import print_deploys
from sahool_dlq.cli.output import console, errors, print_table
from sahool_dlq.cli.report import print_report
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.demo.story import Story, tell
from sahool_dlq.settings import Settings

_EXAMPLE = "SELECT error_class, count(*) FROM failures GROUP BY 1"


@verb
@click.option(
    "--events",
    type=click.IntRange(1),
    default=3_000,
    show_default=True,
    help="events to publish",
)
@click.option("--seed", default=7, show_default=True, help="of the events")
@click.option(
    "--secured",
    "is_secured",
    is_flag=True,
    help="with TLS, and for each part its own users of NATS and PostgreSQL with least rights",
)
def command(settings: Settings, events: int, seed: int, is_secured: bool) -> Answer[Story]:
    """Run a complete example on its own servers, then check that nothing was lost.

    Six services fail for real reasons; Prefect flows drain, analyse and redrive. A bug is
    reproduced, mended and deployed, and the new version cures its failures. The lake and the report
    (a page with charts) stay in DLQ_HOME/demo. The exit status is 1 if a check fails.
    """
    started = time.monotonic()

    def say(text: str) -> None:
        errors.print(f"[dim]{time.monotonic() - started:5.1f} s[/dim]  {text}", soft_wrap=True)

    home = (settings.home / "demo").absolute()
    story = asyncio.run(tell(home, events, seed, say, is_secured=is_secured))
    return Answer(story, _show, status=0 if story.is_sound else 1)


def _show(story: Story) -> None:
    console.print()
    print_report(story.report)
    print_deploys(story.deploys)
    print_table(
        "Checks",
        ["", "what", "found"],
        [("ok" if c.is_met else "FAILED", c.name, c.found) for c in story.checks],
    )
    for name, place in story.places.items():
        console.print(f"{name}: {place}", soft_wrap=True)
    console.print(f"\n{story.published:,} events, {story.seconds:.0f} s. Ask the lake yourself:")
    console.print(f"  dlq sql --lake-uri {story.places['lake']} {_EXAMPLE!r}", soft_wrap=True)
