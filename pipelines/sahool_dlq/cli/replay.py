"""`dlq replay`."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import click

from sahool_dlq.alerts.text import quantity
from sahool_dlq.cli.output import console, print_table, progress, safe
from sahool_dlq.cli.plan import also_reached_facts, pace_fact, reach_facts
from sahool_dlq.cli.redrive import carried_out, unless_approved
from sahool_dlq.cli.verb import BY, Answer, limited, verb
from sahool_dlq.jobs.replay import plan_replay, preview_replay
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.replay.plan import LEFT_OUT
from sahool_dlq.redrive.replay.preview import ReplayPreview
from sahool_dlq.redrive.replay.selection import ReplaySelection, stream_position
from sahool_dlq.settings import Settings

_TIMES = "24h, 7d, 2026-03-01T12:00:00Z, or a sequence: seq:120000"


@verb
@click.option("--consumer", required=True, help="who gets them: its durable name, or STREAM/NAME")
@click.option("--since", help=f"stored at or after this: {_TIMES}")
@click.option("--until", help="stored before this")
@click.option("--subject", help="the event's subject, or a filter: sahool.analysis.*")
@click.option("--where", help="a condition over the event: \"data.crop = 'wheat'\"")
@limited(Selection().limit, "maximum number of events, the oldest first")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="events a second")
@click.option("--reason", help="the reason; stored with the batch. Required without --dry-run")
@BY
@click.option("--dry-run", is_flag=True, help="show what would be published; change nothing")
@click.option("--yes", "is_approved", is_flag=True, help="do not ask for confirmation")
def command(
    settings: Settings,
    consumer: str,
    since: str | None,
    until: str | None,
    subject: str | None,
    where: str | None,
    limit: int,
    rate: float | None,
    reason: str | None,
    by: str,
    dry_run: bool,
    is_approved: bool,
) -> Answer[Any] | None:
    """Publish events again that a consumer handled without an error, but wrongly.

    The events are read from their stream, as long as it has them, and are addressed to this
    consumer alone. Open failures are left out: `dlq redrive` is for those. It starts with 1 event,
    then 10, then all, and stops if none succeeds; an event that fails becomes a dead letter. More
    than DLQ_REDRIVE_APPROVAL_COUNT events wait for an approval. Ctrl-C pauses; `dlq batches`
    continues. The exit status is 1 if it was stopped.
    """
    now = datetime.now(UTC)
    chosen = ReplaySelection(
        consumer,
        stream_position(since, now) if since is not None else None,
        stream_position(until, now) if until is not None else None,
        subject,
        where,
        limit,
    )
    if not dry_run and not (reason or "").strip():
        raise click.UsageError("Give a --reason: it is stored with the batch and in the audit.")
    with progress("Reading events") as advance:
        if dry_run:
            reading = preview_replay(
                settings, chosen, per_second=rate, progress=lambda count: advance(count, None)
            )
            return Answer(asyncio.run(reading), _show_dry_run)
        order = Order("manual", by, reason or "", per_second=rate)
        planning = plan_replay(settings, chosen, order, progress=lambda count: advance(count, None))
        planned = asyncio.run(planning)
    if planned is None:
        nothing = "Nothing to replay: --dry-run says what was read and left out."
        return Answer({"planned": 0, "outcomes": {}}, lambda _: console.print(nothing))
    batch, shown = planned
    if answer := unless_approved(settings, batch, by, lambda: _show(shown), is_yes=is_approved):
        return answer
    return carried_out(settings, batch.id, by, "\n".join(_notes(shown)))


def _show_dry_run(shown: ReplayPreview) -> None:
    _show(shown)
    console.print("[dim]Nothing was published. To publish, run it without --dry-run.[/dim]")


def _show(shown: ReplayPreview) -> None:
    left_out = sum(shown.refused.values()) + len(shown.reached.unreached_ids)
    count = quantity(shown.planned - left_out, "events")
    subjects = [row.subject for row in shown.found.plan.rows]
    print_table(
        f"A replay would publish {count} for {safe(shown.consumer)}",
        ["subject", "events"],
        [(subject, subjects.count(subject)) for subject in shown.found.plan.subjects],
    )
    if shown.planned:
        print_table(
            "The oldest of them",
            ["sequence", "stored at", "subject"],
            [(event.sequence, row.failed_at, row.subject) for event, row in shown.sample],
        )
    facts = [
        f"{count:,} would not be published: {safe(reason)}."
        for reason, count in shown.refused.items()
    ]
    facts += _notes(shown)
    if shown.planned:
        facts += [pace_fact(shown.per_second, shown.seconds)]
        facts += also_reached_facts(shown.also_reached)
    for fact in facts:
        console.print(fact, soft_wrap=True)


def _notes(shown: ReplayPreview) -> list[str]:
    """What was read, and what is not replayed and why."""
    found = shown.found
    read = quantity(found.read_count, "events")
    rate = found.read_count / found.seconds if found.seconds else 0
    notes = [f"Read {read} in {found.seconds:.1f} s ({rate:,.0f} a second)."]
    notes += [f"Left out: {count:,} {LEFT_OUT[why]}." for why, count in found.left_out.items()]
    if found.unfinished:
        notes.append(
            f"{safe(shown.consumer)} has not finished {found.unfinished:,} events: these and later"
            " ones are left out."
        )
    if found.begins_at is not None:
        at = f"{found.begins_at:%Y-%m-%d %H:%M:%S} UTC"
        notes.append(f"The stream begins at {at}: earlier events are gone.")
    if found.rest_from is not None:
        notes.append(f"That is the limit. For the rest: --since seq:{found.rest_from}")
    return notes + reach_facts(shown.reached)
