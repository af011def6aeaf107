"""`dlq doctor`."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sahool_dlq.cli.output import console, errors, print_table, safe
from sahool_dlq.cli.verb import Answer, verb, wants_json
from sahool_dlq.doctor.diagnosis import (
    NAGIOS_UNKNOWN,
    Diagnosis,
    as_json,
    as_nagios,
    as_prometheus,
    examine,
    write_page,
)
from sahool_dlq.doctor.finding import Severity
from sahool_dlq.errors import DLQError
from sahool_dlq.settings import Settings

_STYLES = {Severity.LOSES: "bold red", Severity.MAY_LOSE: "yellow", Severity.ADVICE: "dim"}


@verb
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "prometheus", "nagios"]),
    default="text",
    help="output format; nagios exits with 0, 1 (warning), 2 (loss) or 3 (no answer)",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write one HTML page that needs no network",
)
@click.option(
    "--listen",
    "listen_seconds",
    type=click.FloatRange(0, 600),
    default=2.0,
    metavar="SECONDS",
    help="seconds to listen to the answers of consumers [2]",
)
@click.option(
    "--stalled-after",
    "stalled_seconds",
    type=click.FloatRange(0),
    default=900.0,
    metavar="SECONDS",
    help="seconds without a delivery after which a consumer counts as stalled [900]",
)
def command(
    settings: Settings,
    form: str,
    html: Path | None,
    listen_seconds: float,
    stalled_seconds: float,
) -> Answer[Any]:
    """Check for each stream and consumer what happens to a message that always fails.

    Needs only a NATS server and read-only rights: no PostgreSQL, no lake, no stream of this
    platform. Changes nothing and delivers nothing. The exit status is 1 if something loses data.
    """
    if wants_json() and form != "text":
        raise click.UsageError("Give --json or --format, not both.")
    looking = examine(settings, listen_seconds=listen_seconds, stalled_seconds=stalled_seconds)
    try:
        found = asyncio.run(looking)
        if html:
            write_page(found, html, datetime.now(UTC))
    except DLQError as error:
        if form != "nagios":
            raise
        return Answer(f"DLQ UNKNOWN - {error}", click.echo, NAGIOS_UNKNOWN)
    if html and form != "nagios":
        errors.print(f"Wrote {safe(html)}", soft_wrap=True)
    if form == "nagios":
        text, status = as_nagios(found)
        return Answer(text, click.echo, status)
    status = 1 if found.is_losing else 0
    if form == "prometheus":
        return Answer(found, lambda _: click.echo(as_prometheus(found), nl=False), status)
    return Answer(as_json(found), lambda _: _show(found), status)


def _show(found: Diagnosis) -> None:
    for each in found.findings:
        style = _STYLES[each.severity]
        console.print(
            f"[{style}]{each.severity}[/{style}]  [bold]{safe(each.subject)}[/bold]"
            f" [dim]{each.rule}[/dim]",
            soft_wrap=True,
        )
        console.print(f"  {safe(each.sentence)}", soft_wrap=True)
        console.print(f"  [cyan]{safe(each.command)}[/cyan]\n", soft_wrap=True)
    if found.fates:
        print_table("What happens to an event that always fails", ("consumer", "what"), found.fates)
    console.print(safe(found.summary), soft_wrap=True)
