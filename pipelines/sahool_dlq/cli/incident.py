"""`dlq incident`."""

from datetime import datetime
from pathlib import Path

import click

from sahool_dlq.analysis.report.advice import next_command, state_in_words, what_failed
from sahool_dlq.analysis.report.incidents import (
    Incident,
    duration,
    post_mortem,
    services_in_words,
)
from sahool_dlq.analysis.report.section import seconds_as_text
from sahool_dlq.cli.as_of import AS_OF, moment
from sahool_dlq.cli.groups import STATES
from sahool_dlq.cli.output import cell, console, print_line, print_table, safe
from sahool_dlq.cli.verb import HTML, Answer, known_lake, verb
from sahool_dlq.jobs.incidents import find_incident, write_incident_page
from sahool_dlq.settings import Settings


@verb
@click.argument("id_", metavar="ID")
@click.option(
    "--postmortem",
    "is_post_mortem",
    is_flag=True,
    help="print the draft of a post-mortem, Markdown",
)
@HTML
@AS_OF
def command(
    settings: Settings, id_: str, is_post_mortem: bool, html: Path | None, as_of: str | None
) -> Answer[Incident]:
    """Show an incident by its id (or its first characters): figures, timeline, groups.

    The timeline has the beginning and end of each group, the versions that began to run from a day
    before, redrives, decisions, and the alerts that a channel accepted. --html writes a page with
    the chart. Reads the lake.
    """
    known_lake(settings)
    now = moment(settings, as_of)
    incident = find_incident(settings, id_, now)
    if html:
        write_incident_page(incident, now, html)
        return Answer(incident, lambda _: console.print(f"Wrote {html}", soft_wrap=True))
    if is_post_mortem:
        return Answer(incident, lambda it: click.echo(post_mortem(it, now)))
    return Answer(incident, lambda it: _show(it, now))


def _show(incident: Incident, now: datetime) -> None:
    row = incident.row
    state = "[green]over[/green]" if row["until_at"] else "[bold red]it lasts[/bold red]"
    console.print(f"{state}  [bold]{safe(services_in_words(row))}[/bold]\n", soft_wrap=True)
    facts = {
        "incident": row["incident_id"],
        "from": row["from_at"],
        "to": row["until_at"],
        "lasted": duration(row, now),
        "failures": f"{row['failure_count']:,}, at most {row['peak_count']:,} a minute",
        "tenants": row["tenant_count"],
        "cured by redrive": row["cured_count"],
        "open": row["open_count"],
        "delay": f"{seconds_as_text(row['delay_seconds'])}, of all its events together",
    }
    for name, value in facts.items():
        console.print(f"  [cyan]{name:<18}[/cyan] {cell(value)}", soft_wrap=True)
    console.print()
    print_table(
        "Timeline",
        ["at", "what", "count", "by", "details", "until"],
        [(s.at, s.kind, s.count, s.by, s.text, _later(s.at, s.until)) for s in incident.steps],
        drop=["until"],
    )
    console.print("[bold]Groups[/bold]")
    for group in incident.groups:
        style = STATES[group["state"]]
        print_line(f"[{style}]{safe(state_in_words(group))}[/]  {safe(what_failed(group))}")
        command = next_command(group) or f"dlq show {group['group_id']}"
        print_line(f"  {safe(command)}")
    console.print(
        f"\n[dim]A draft to fill in: dlq incident {row['incident_id']} --postmortem[/dim]"
    )


def _later(at: datetime, until: datetime | None) -> datetime | None:
    return until if until and until > at else None
