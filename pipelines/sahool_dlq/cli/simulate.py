"""`dlq simulate`."""

import asyncio
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from sahool_dlq.cli.output import console, print_table, progress
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.redrive.choose.selection import moment
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import SimulationReport, into_lake, into_stream
from sahool_dlq.simulation.scenario import Scenario


@verb
@click.option("--days", type=click.FloatRange(1, 3650), default=30, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0.1),
    default=60,
    show_default=True,
    help="failures per hour in normal times",
)
@click.option(
    "--seed", default=1, show_default=True, help="random seed; the same seed gives the same data"
)
@click.option("--until", help="end of the history, as 2026-01-31T12:00:00Z  [default: now]")
@click.option("--quiet", is_flag=True, help="no incidents, only normal failures")
@click.option("--stream", is_flag=True, help="publish to the stream instead, for `dlq drain`")
@click.option("--add", is_flag=True, help="add to existing data")
@click.option(
    "--truth",
    type=click.Path(path_type=Path, dir_okay=False),
    help="file for the true causes, as JSON  [default: DLQ_HOME/simulated.json]",
)
def command(
    settings: Settings,
    days: float,
    rate: float,
    seed: int,
    until: str | None,
    quiet: bool,
    stream: bool,
    add: bool,
    truth: Path | None,
) -> Answer[SimulationReport]:
    """Write a synthetic history of failures with known causes to an empty lake.

    It has daily and weekly patterns, outages that spread, a bad deploy, a tenant and messages that
    always fail, a group that comes back, and redrives with their outcomes. `dlq marts` then finds
    these. `dlq drain` copies the history from the lake to an empty database.

    A lake or a stream that holds data is refused without --add.
    """
    now = datetime.now(UTC)
    scenario = Scenario(moment(until, now) if until else now, days, rate, seed, quiet)
    place = truth or settings.home / "simulated.json"
    with progress("Simulating") as advance:

        def show(share: float) -> None:
            advance(round(100 * share), 100)

        if stream:
            report = asyncio.run(into_stream(settings, scenario, show, is_added=add))
        else:
            report = into_lake(settings, scenario, show, is_added=add)
    place.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.truth.as_dict(), default=lambda at: at.isoformat(), indent=1)
    place.write_text(text + "\n", encoding="utf-8")
    return Answer(report, partial(_show, days=days, place=place))


def _show(report: SimulationReport, days: float, place: Path) -> None:
    print_table(
        f"{days:g} days in {report.seconds:.1f} s",
        ["what", "rows"],
        [
            ("dead letters", report.dead_letters),
            ("news of them", report.case_events),
            ("samples of totals", report.totals),
        ],
    )
    console.print(f"The true causes: {place}", soft_wrap=True)
