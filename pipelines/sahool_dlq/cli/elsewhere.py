"""`dlq redrive --to-context` and `--to-server`: copies for another NATS."""

import asyncio
import os
from typing import Any

import click

from sahool_dlq.alerts.text import quantity
from sahool_dlq.cli.output import console, print_table, safe, spinner
from sahool_dlq.cli.plan import LIMIT_REACHED
from sahool_dlq.cli.selecting import is_agreed
from sahool_dlq.cli.verb import Answer, wants_json
from sahool_dlq.errors import RedriveError
from sahool_dlq.jetstream.access import access_elsewhere
from sahool_dlq.jetstream.address import shown
from sahool_dlq.jobs.elsewhere import CopyReport, copy_events, count_copies
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings

__all__ = ["copied_elsewhere"]


def copied_elsewhere(
    settings: Settings,
    selection: Selection,
    context: str | None,
    server: str | None,
    *,
    is_raw: bool,
    subject: str | None,
    per_second: float | None,
    by: str,
    reason: str,
    is_dry_run: bool,
    is_approved: bool,
) -> Answer[Any] | None:
    """The answer of `dlq redrive` for another NATS; None if a person did not agree."""
    if context and server:
        raise click.UsageError("--to-context and --to-server are both given: give one of them.")
    access = access_elsewhere(context, server, os.environ)
    target = f"context {context}" if context else shown(access.servers)
    counts, left_out = count_copies(settings, selection, is_raw=is_raw)
    total, how = sum(counts.values()), "as they were" if is_raw else "masked"
    question = f"{quantity(total, 'events')} would be copied to {target}, {how}"
    if is_dry_run:
        told = {"to": target, "masked": not is_raw, "events": counts, "left_out": left_out}
        return Answer(told, lambda _: _show_dry_run(question, counts, left_out))
    if total > settings.redrive_approval_count > 0 and not wants_json():
        console.print(safe(f"{question}."), soft_wrap=True)
        if not is_agreed("Go on?", is_yes=is_approved):
            console.print("Nothing was copied.")
            return None
    with spinner("Copying"):
        copying = copy_events(
            *(settings, selection, access),
            target=target,
            actor=by,
            reason=reason,
            is_raw=is_raw,
            subject=subject,
            per_second=per_second,
        )
        report = asyncio.run(copying)
    nothing = RedriveError("No event was copied: the reasons are above.")
    is_in_vain = not report.count and (total or left_out)
    return Answer(report, _show, error=nothing if is_in_vain else None)


def _show_dry_run(title: str, counts: dict[str, int], left_out: dict[str, int]) -> None:
    print_table(title, ["subject", "events"], counts.items())
    _show_left_out(left_out)


def _show_left_out(left_out: dict[str, int]) -> None:
    for reason, count in left_out.items():
        console.print(f"{count:,} left out: {safe(reason)}.", soft_wrap=True)


def _show(report: CopyReport) -> None:
    how = "masked" if report.is_masked else "as they were"
    console.print(
        safe(f"{quantity(report.count, 'events')} copied to {report.target}, {how}."),
        soft_wrap=True,
    )
    _show_left_out(report.left_out)
    if report.limit_reached:
        console.print(LIMIT_REACHED)
    console.print("[dim]No failure changed here, and no outcome will be reported.[/dim]")
