"""`dlq redrive`."""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sahool_dlq.cli.elsewhere import copied_elsewhere
from sahool_dlq.cli.output import console, progress
from sahool_dlq.cli.plan import (
    LIMIT_REACHED,
    abortion,
    print_plan,
    print_report,
    unreached_facts,
)
from sahool_dlq.cli.selecting import is_agreed, selecting
from sahool_dlq.cli.verb import BY, Answer, verb, wants_json
from sahool_dlq.errors import RedriveError
from sahool_dlq.jobs.batches import approve, cancel, list_batches, pause, show_batch
from sahool_dlq.jobs.redrive import (
    plan_redrive,
    preview_redrive,
    run_redrive,
    transient_selection,
)
from sahool_dlq.redrive.batches import ENDED, Batch
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection, duration
from sahool_dlq.redrive.edit.patch import Edit, checked_headers, read_edit
from sahool_dlq.redrive.preview import Preview
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.settings import Settings


@verb
@selecting()
@click.option("--transient", is_flag=True, help="error types of DLQ_TRANSIENT_ERROR_TYPES")
@click.option("--to", "redirect_to", help="publish to this subject instead of the events' own")
@click.option("--for", "addressed_to", help="deliver to this consumer, STREAM/CONSUMER")
@click.option(
    "--edit",
    help='change the event bodies: a JSON merge patch, {"unit": "ha"}, a JSON Patch, or @FILE',
)
@click.option("--edit-headers", help='change headers: {"X-Unit": "ha", "X-Old": null}, or @FILE')
@click.option("--edit-with", help="change bodies and headers by a Python function: module:function")
@click.option("--to-context", help="copy the events to another NATS: a context of the nats command")
@click.option("--to-server", help="the same by its address, such as nats://localhost:4222")
@click.option("--raw", "is_raw", is_flag=True, help="such copies as they were, and not masked")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="redrives a second")
@click.option("--max-age", help="skip and park events older than this: 24h, 7d")
@click.option(
    "--own-copy",
    is_flag=True,
    help="where the stream lost the event, use the copy in the dead letter",
)
@click.option(
    "--reason", default="by hand", show_default=True, help="the reason; stored with the batch"
)
@BY
@click.option("--dry-run", is_flag=True, help="show what would be published; change nothing")
@click.option("--yes", "is_approved", is_flag=True, help="do not ask for confirmation")
def command(
    settings: Settings,
    selection: Selection,
    transient: bool,
    redirect_to: str | None,
    addressed_to: str | None,
    edit: str | None,
    edit_headers: str | None,
    edit_with: str | None,
    to_context: str | None,
    to_server: str | None,
    is_raw: bool,
    rate: float | None,
    max_age: str | None,
    own_copy: bool,
    reason: str,
    by: str,
    dry_run: bool,
    is_approved: bool,
) -> Answer[Any] | None:
    """Publish failed events again for the consumer that failed (also called retry).

    Takes pending failures, and parked ones that are given by id. Each group starts with 1 event,
    then 10, then all, and stops if none succeeds. Events that no consumer would receive are left
    out. More than DLQ_REDRIVE_APPROVAL_COUNT events wait for an approval. Ctrl-C pauses. The exit
    status is 1 if a group was stopped.

    --to-context and --to-server copy events to another NATS instead, whatever the failures' status:
    masked, or with --raw for those who may read payloads. No failure changes here.
    """
    if transient:
        types = (*selection.error_types, *transient_selection(settings).error_types)
        selection = replace(selection, error_types=types)
    patch = _edit(edit, edit_headers, edit_with)
    if to_context or to_server:
        if patch or addressed_to or max_age or own_copy:
            raise click.UsageError(
                "Copies for another NATS are not edited, addressed or checked for their age: give"
                " --to-context or --to-server without those options."
            )
        return copied_elsewhere(
            *(settings, selection, to_context, to_server),
            is_raw=is_raw,
            subject=redirect_to,
            per_second=rate,
            by=by,
            reason=reason,
            is_dry_run=dry_run,
            is_approved=is_approved,
        )
    if is_raw:
        raise click.UsageError("--raw is for copies: give --to-context or --to-server.")
    max_age_seconds = _seconds(max_age) if max_age is not None else None
    if dry_run:
        shown = asyncio.run(
            preview_redrive(
                settings,
                selection,
                redirect_to=redirect_to,
                patch=patch,
                per_second=rate,
                addressed_to=addressed_to,
                max_age_seconds=max_age_seconds,
            )
        )
        return Answer(shown, _show_dry_run)
    order = Order(
        "manual",
        by,
        reason,
        redirect_to,
        patch,
        rate,
        addressed_to,
        max_age_seconds,
        own_copy,
    )
    planned = asyncio.run(plan_redrive(settings, selection, order))
    if planned is None:
        return Answer({"planned": 0, "outcomes": {}}, lambda _: _show_nothing(settings))
    batch, shown = planned
    waiting = unless_approved(settings, batch, by, lambda: print_plan(shown), is_yes=is_approved)
    if waiting is not None:
        return waiting
    note = "\n".join(unreached_facts(shown) + [LIMIT_REACHED] * shown.plan.limit_reached)
    return carried_out(settings, batch.id, by, note)


def _show_dry_run(shown: Preview) -> None:
    print_plan(shown)
    console.print("[dim]Nothing was published. To publish, run it without --dry-run.[/dim]")


def _show_nothing(settings: Settings) -> None:
    console.print("Nothing to redrive: no pending failure matches.")
    if any(each.state not in ENDED for each in list_batches(settings)):
        console.print("An unfinished batch may hold it: see dlq batches")


def carried_out(settings: Settings, batch_id: str, by: str, note: str = "") -> Answer[Any]:
    """Carry out a batch with its progress shown; Ctrl-C pauses it.

    The answer has a RedriveError where the batch aborted itself.
    """
    try:
        with progress(show_batch(settings, batch_id).doing) as advance:
            running = run_redrive(
                settings, batch_id, lambda done, total: advance(sum(done.values()), total)
            )
            report = asyncio.run(running)
    except KeyboardInterrupt:
        report = _interrupted(settings, batch_id, by)

    def show(_: object) -> None:
        print_report(report)
        if note:
            console.print(note, soft_wrap=True)

    return Answer(report, show, error=abortion(report))


def _interrupted(settings: Settings, batch_id: str, by: str) -> RedriveReport:
    """Leave nothing behind that a schedule would take up."""
    batch, why = show_batch(settings, batch_id), "interrupted at the terminal"
    if batch.state == "running":
        batch = pause(settings, batch_id, by=by, reason=why)
    elif batch.state == "planned":
        batch = cancel(settings, batch_id, by=by, reason=why)
    return RedriveReport(batch.id, batch.kind, batch.planned, state=batch.state)


def unless_approved(
    settings: Settings, batch: Batch, by: str, show: Callable[[], object], *, is_yes: bool
) -> Answer[Any] | None:
    """None if the batch may run: it needs no approval, or it is approved now.

    `is_yes` approves it; else a person at the terminal is asked, after `show` printed the plan.
    Elsewhere the batch waits.
    """
    if batch.state != "awaiting_approval":
        return None
    if not wants_json():
        show()
    if not is_yes and (answer := _unless_agreed(settings, batch, by)):
        return answer
    approve(settings, batch.id, by=by)
    return None


def _unless_agreed(settings: Settings, batch: Batch, by: str) -> Answer[Any] | None:
    if wants_json() or not sys.stdin.isatty():
        return Answer(
            RedriveReport(batch.id, batch.kind, batch.planned, state=batch.state), print_report
        )
    if is_agreed(f"Publish {batch.planned:,} events?", is_yes=False):
        return None
    batch = cancel(settings, batch.id, by=by, reason="not approved at the terminal")
    said = "Nothing was published; the batch is cancelled."
    return Answer(batch, lambda _: console.print(said))


def _seconds(max_age: str) -> float:
    try:
        found = duration(max_age)
    except OverflowError:
        found = None
    if not found:
        raise click.BadParameter(
            f"{max_age[:40]!r} is not a duration: write 24h or 7d.", param_hint="--max-age"
        )
    return found.total_seconds()


def _edit(body: str | None, headers: str | None, function: str | None) -> Any:
    """The edit for the order, None if there is none."""
    if function and (body is not None or headers is not None):
        raise click.UsageError("--edit-with changes bodies and headers: give it alone.")
    values = None
    if headers is not None:
        try:
            values = checked_headers(json.loads(_text(headers, "--edit-headers")))
        except (ValueError, RecursionError) as error:
            raise RedriveError(f"The headers are not JSON: {error}.") from error
    patch = read_edit(_text(body, "--edit")) if body is not None else None
    return Edit(patch, values, function or None).stored()


def _text(edit: str, flag: str) -> str:
    if not edit.startswith("@"):
        return edit
    try:
        return Path(edit[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{edit[1:]} cannot be read: {error}", param_hint=flag) from None
