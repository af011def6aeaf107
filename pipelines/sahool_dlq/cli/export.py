"""`dlq export`."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from sahool_dlq.cli.output import errors, safe, spinner
from sahool_dlq.cli.selecting import selecting
from sahool_dlq.cli.verb import BY, Answer, verb, wants_json
from sahool_dlq.errors import QueryError
from sahool_dlq.jobs.export import ExportReport, export, export_raw
from sahool_dlq.redrive.choose.selection import EVERYTHING, Selection
from sahool_dlq.reproduce.formats import FORMATS, Format, is_binary
from sahool_dlq.settings import Settings

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@verb
@selecting(EVERYTHING)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="jsonl",
    show_default=True,
    help="CSV is for spreadsheets: no cell of it is a formula; the others are exact",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="a file [stdout]"
)
@click.option("--raw", "is_raw", is_flag=True, help="the events as they were, and not masked")
@click.option("--reason", default="", help="why raw events are read; kept in the audit")
@BY
def command(
    settings: Settings,
    selection: Selection,
    form: Format,
    output: Path | None,
    is_raw: bool,
    reason: str,
    by: str,
) -> Answer[ExportReport]:
    """Write failures with their events to a file, masked.

    Whatever their status, oldest first. --raw is for those who may read payloads; each failure
    whose event it reads is in the audit. --json prints the counts, and needs --output.
    """
    if wants_json() and output is None:
        raise click.UsageError("--json prints the counts: say with --output where the rows go.")
    if is_binary(form) and output is None and sys.stdout.isatty():
        raise QueryError(f"{form} is nothing for a terminal: add --output FILE, or > FILE.")
    with spinner("Exporting"), _opened(output, is_private=is_raw) as file:
        if is_raw:
            work = export_raw(settings, selection, form, file, actor=by, reason=reason)
            report = asyncio.run(work)
        else:
            report = export(settings, selection, form, file)
    return Answer(report, partial(_tell, output=output))


@contextmanager
def _opened(output: Path | None, *, is_private: bool) -> Iterator[BinaryIO]:
    """A file that has its name only once it is whole; a private one is for this user only."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f"{output.name}.part")
    try:
        opened = os.open(part, _NEW_FILE, 0o600 if is_private else 0o666)
        try:
            with os.fdopen(opened, "wb") as file:
                yield file
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)
    except FileExistsError as error:
        raise QueryError(
            f"{part} is there already: another export writes it, or was ended; take it away."
        ) from error
    except OSError as error:
        raise QueryError(f"{output} was not written: {error.strerror}.") from error


def _tell(report: ExportReport, output: Path | None) -> None:
    where = f" to {output}" if output else ""
    said = [f"{report.failures:,} failures were written{where}."]
    if report.missing:
        said.append(f"Of {report.missing:,} the event is gone; `missing` says why.")
    if report.limit_reached:
        said.append("There may be more: --limit.")
    errors.print(f"[dim]{safe(' '.join(said))}[/dim]", soft_wrap=True)
