"""`dlq why`."""

import asyncio
from dataclasses import replace

import click

from sahool_dlq.cli.output import console, errors, progress, safe, warn_undrained
from sahool_dlq.cli.selecting import selecting
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.deadletter.ids import is_uuid
from sahool_dlq.jobs.redrive import known_group
from sahool_dlq.jobs.why import SAMPLE, ConsumerReport, WhyReport, why_these
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings


@verb
@selecting(SAMPLE, "failing events that are read, of each consumer")
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=SAMPLE,
    show_default=True,
    help="events that succeeded, of each consumer",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="another one reads other events"
)
def command(settings: Settings, selection: Selection, sample: int, seed: int) -> Answer[WhyReport]:
    """Show what failing events have that others, which their consumer handled, do not have.

    Takes failure ids or a group: dlq why 1f0c. Reads the events' stream, where the successes still
    are, and changes nothing. Keys that are missing, types, values, numbers, lengths, headers,
    subject, tenant, versions and hours are compared, after redaction. The first line is the
    strongest difference; each next one is about failures that the lines before do not explain.
    """
    selection = _with_group(settings, selection)
    with progress("Comparing") as advance:
        report = asyncio.run(
            why_these(settings, selection, sample=sample, seed=seed, progress=advance)
        )
    return Answer(report, _show)


def _with_group(settings: Settings, selection: Selection) -> Selection:
    """The selection, in which a single id may be that of a group."""
    match selection.failure_ids:
        case (one,) if not is_uuid(one) and selection.group_id is None:
            return replace(selection, failure_ids=(), group_id=known_group(settings, one))
    return selection


def _show(report: WhyReport) -> None:
    for each in report.consumers:
        _show_consumer(each)
    if report.left_out:
        errors.print(
            f"[yellow]Not compared: {report.left_out:,} failures of other consumers, or of which"
            " stream and consumer are not known.[/yellow]",
            soft_wrap=True,
        )
    warn_undrained(report.undrained)


def _show_consumer(each: ConsumerReport) -> None:
    console.print(f"[bold]{safe(each.consumer)}[/bold]: {each.failures:,} failures", soft_wrap=True)
    if each.why_none:
        console.print(f"  {safe(each.why_none)}", soft_wrap=True)
    if each.comparison:
        found = each.comparison
        lost = f" ({each.lost:,} more have left their stream)" if each.lost else ""
        console.print(
            f"  [dim]{found.failing:,} failing events{lost} beside {found.succeeding:,} that"
            " succeeded[/dim]",
            soft_wrap=True,
        )
        for difference in found.differences:
            console.print(f"  {safe(difference)}", soft_wrap=True)
        if found.why_none:
            console.print(f"  {safe(found.why_none)}", soft_wrap=True)
