"""`dlq adopt`."""

import asyncio
from typing import Any

import click

from sahool_dlq.bridge.adopt import LIMITS, Adoption, Limits
from sahool_dlq.cli.output import cell, console, log_plainly, safe
from sahool_dlq.cli.selecting import is_agreed
from sahool_dlq.cli.verb import BY, Answer, verb, wants_json
from sahool_dlq.jobs.adoption import Wish, adopt, preview_adoption
from sahool_dlq.settings import Settings


@verb
@click.argument("consumer", metavar="[STREAM/]CONSUMER")
@click.option(
    "--max-deliver",
    type=click.IntRange(1, 1_000),
    help="deliveries after which it gives an event up [5 where unlimited]",
)
@click.option(
    "--backoff",
    metavar="SECONDS,…",
    help="how long to wait for an answer, delivery by delivery [ack_wait, each time]",
)
@click.option("--proof", "is_proof", is_flag=True, help="have the server report each success")
@click.option("--undo", "is_undo", is_flag=True, help="restore the previous configuration")
@click.option("--reason", help="the reason; stored in the audit")
@BY
@click.option("--dry-run", is_flag=True, help="show the change; do not make it")
@click.option("--yes", is_flag=True, help="do not ask")
def command(
    settings: Settings,
    consumer: str,
    max_deliver: int | None,
    backoff: str | None,
    is_proof: bool,
    is_undo: bool,
    reason: str | None,
    by: str,
    dry_run: bool,
    yes: bool,
) -> Answer[Any]:
    """Set up a consumer that does not use this library: limit its retries, prove successes.

    Sets its max_deliver to 5 if it is unlimited, and changes nothing else. --backoff also sets how
    long each delivery waits for an answer. The stream SAHOOL_ADVISORIES records events that it
    gives up, and `dlq bridge` makes dead letters of them.

    --proof sets only its sample_freq to 100 %: the server then reports each acknowledged event. So
    the success of a redrive is proved instead of inferred, and the service gets totals and a
    failure rate. It costs one message of about 300 bytes per event.
    """
    if is_undo and (is_proof or max_deliver or backoff):
        raise click.UsageError(
            "--undo restores everything, so it cannot be combined with other options."
        )
    if not dry_run and reason is None:
        raise click.UsageError(
            "A reason is missing: give --reason TEXT. It is stored in the audit."
        )
    is_limited = not is_proof or bool(max_deliver or backoff)
    wish = Wish(is_proof, Limits(max_deliver, _seconds(backoff)) if is_limited else None)
    log_plainly()
    found = asyncio.run(preview_adoption(settings, consumer, wish, is_undo=is_undo))
    if not wants_json():
        _show(found, wish, is_undo=is_undo)
    if not dry_run and found.is_change and not is_agreed("Change it?", is_yes=yes):
        dry_run = True
    if not dry_run:
        done = adopt(settings, found.address, wish, actor=by, reason=reason or "", is_undo=is_undo)
        found = asyncio.run(done)

    def show(_: object) -> None:
        if found.is_change:
            said = "Nothing was changed." if dry_run else "Done. The change is in the audit."
            console.print(said)

    return Answer(found.as_dict() | {"dry_run": dry_run}, show)


def _seconds(backoff: str | None) -> tuple[float, ...]:
    try:
        waits = tuple(float(each) for each in (backoff or "").split(",") if backoff)
    except ValueError:
        waits = (0.0,)
    if not all(0.001 <= each <= 30 * 86_400 for each in waits):
        raise click.UsageError("--backoff takes seconds separated by commas, such as 30,60,300.")
    return waits


def _show(found: Adoption, wish: Wish, *, is_undo: bool) -> None:
    if not found.is_change:
        names = ["sample_freq"] if wish.is_proof or is_undo else []
        names += ["max_deliver"] if wish.limits else []
        values = ", ".join(f"{name} {_value(found.before, name)}" for name in names)
        console.print(f"{safe(found.address)} has these values already: {values}.", soft_wrap=True)
        return
    changes = ", ".join(
        f"{name} {_value(found.before, name)} → {_value(found.after, name)}"
        for name in found.changed
    )
    console.print(
        f"[bold]{safe(found.address)}[/bold]: {changes}; its other"
        f" {len(found.before.keys() - set(found.changed))} settings stay.",
        soft_wrap=True,
    )
    most = found.after.get("max_deliver") or 0
    if "max_deliver" in found.changed and most > 0 and found.redelivered:
        console.print(
            f"{found.redelivered:,} of its events are waiting for redelivery: those that were"
            f" delivered"
            f" {most} times or more are given up at once.",
            soft_wrap=True,
        )


def _value(config: dict[str, Any], name: str) -> str:
    value = config.get(name)
    if name in LIMITS and name != "max_deliver" and value:
        each = value if isinstance(value, list) else [value]
        return safe(", ".join(f"{wait / 1e9:g} s" for wait in each))
    if name == "max_deliver" and (value or -1) < 0:
        return "unlimited"
    return cell(value)
