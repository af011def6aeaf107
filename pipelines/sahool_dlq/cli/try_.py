"""`dlq try`."""

import asyncio
import math
from pathlib import Path
from typing import Any

import click

from sahool_dlq.cli.output import console, errors, progress, safe
from sahool_dlq.cli.selecting import selecting
from sahool_dlq.cli.verb import BY, Answer, verb, wants_json
from sahool_dlq.jobs.trial import Trial, try_handler
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.verdict import TrialReport
from sahool_dlq.reproduce.words import EFFECTS, annotations, group_line, notes, summary
from sahool_dlq.settings import Settings

_OF_EACH = 50
_MOST_SECONDS = 86_400


@verb
@click.argument("handler", metavar="MODULE:HANDLER")
@selecting(_OF_EACH, "of each group at most so many")
@click.option("--all-open", is_flag=True, help="all that is open, and successes besides: for CI")
@click.option(
    "--successes",
    type=click.IntRange(0),
    help="events that succeeded, to be called again [default: 0; with --all-open 1000]",
)
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(0, _MOST_SECONDS, min_open=True),
    default=30,
    show_default=True,
    help="seconds for one call",
)
@click.option("--attempt", type=click.IntRange(0), help="which call it is [default: the last one]")
@click.option("--pdb", "is_debugged", is_flag=True, help="a debugger where the handler raises")
@click.option(
    "--write-test",
    "tests",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="a pytest file for each group, with masked events, that fails until it is mended",
)
@click.option("--python", help="interpreter of the service's environment [default: this one]")
@click.option(
    "--at",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="folder of the working copy [default: here]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "github")),
    default="text",
    show_default=True,
    help="github: annotations of a pull request",
)
@click.option("--reason", default="", help="why; kept in the audit")
@BY
def command(
    settings: Settings,
    handler: str,
    selection: Selection,
    all_open: bool,
    successes: int | None,
    seconds: float,
    attempt: int | None,
    is_debugged: bool,
    tests: Path | None,
    python: str | None,
    folder: Path,
    form: str,
    reason: str,
    by: str,
) -> Answer[Any]:
    """Call a handler of the working copy with the raw events of open failures, here.

    Nothing is published, acknowledged or stored, except by the handler itself. The handler may be
    async or not. It runs in a separate process and gets a ConsumerContext. An event passes if it
    returns SUCCESS. Needs the right to read payloads; the audit records who tried what.

    The exit status is 1 if an event fails; with --all-open, if a success breaks.
    """
    if not math.isfinite(seconds):
        raise click.UsageError("--timeout is a number of seconds.")
    if wants_json() and is_debugged:
        raise click.UsageError("--pdb needs the terminal, where --json would print: take one.")
    module, colon, name = handler.partition(":")
    if not (module and colon and name):
        raise click.UsageError(
            f"{handler!r} is no handler: write MODULE:FUNCTION, as price:handle."
        )
    is_chosen = set(selection.as_json()) - {"limit"}
    if not is_chosen and not all_open:
        raise click.UsageError("Say which failures, with --group for example, or --all-open.")
    with progress("Trying", is_shown=not is_debugged) as advance:  # then it is the debugger's
        trial = Trial(
            handler,
            folder,
            selection if is_chosen else None,
            of_each=selection.limit,
            successes=(1_000 if all_open else 0) if successes is None else successes,
            seconds=seconds,
            attempt=attempt,
            python=python,
            is_debugged=is_debugged,
            tests=tests,
            actor=by,
            reason=reason,
            progress=advance,
        )
        report = asyncio.run(try_handler(settings, trial))

    def show(_: object) -> None:
        if form == "text":
            _show(report, is_whole=all_open)
        for line in annotations(report) if form == "github" else ():
            click.echo(line)

    is_failed = report.broken or (not all_open and report.passed < report.tried)
    told = report.as_dict() | {"summary": summary(report)}
    return Answer(told, show, status=1 if is_failed else 0)


def _show(report: TrialReport, *, is_whole: bool) -> None:
    for group in report.groups:
        head = f"[bold]{safe(group.error_type)}[/bold] in {safe(group.service)}"
        console.print(
            f"[cyan]{safe(group.group_id)}[/cyan]  {head}, {group.open_count:,} open",
            soft_wrap=True,
        )
        style = "green" if group.is_cured else "red"
        console.print(f"  [{style}]{safe(group_line(group, report.known))}[/]", soft_wrap=True)
        for kind in group.kinds:
            console.print(f"    [dim]{safe(kind.error_message)}[/dim]", soft_wrap=True)
    for kind in report.successes.kinds if report.successes else ():
        where = f" at {kind.at}" if kind.at else ""
        said = f"{kind.count:,} successes break: {kind.error_type}{where}: {kind.error_message}"
        console.print(f"[red]{safe(said)}[/red]", soft_wrap=True)
    if is_whole or report.successes:
        console.print(f"[bold]{safe(summary(report))}[/bold]", soft_wrap=True)
    for file in report.tests:
        console.print(f"Wrote {safe(file)}: python -m pytest {safe(file)}", soft_wrap=True)
    for note in notes(report):
        errors.print(f"[yellow]{safe(note)}[/yellow]", soft_wrap=True)
    errors.print(f"[dim]{EFFECTS}[/dim]", soft_wrap=True)
