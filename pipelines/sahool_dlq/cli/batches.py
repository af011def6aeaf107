"""`dlq batches`."""

from collections.abc import Callable
from typing import Any

import click

from sahool_dlq.cli.output import cell, console, print_table, safe
from sahool_dlq.cli.redrive import carried_out
from sahool_dlq.cli.verb import BY, Answer, limited, verb
from sahool_dlq.jobs.batches import (
    approve,
    cancel,
    list_batches,
    pause,
    reject,
    resume,
    show_batch,
)
from sahool_dlq.jobs.decisions import audit_trail
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.settings import Settings

_ACTIONS: dict[str, Callable[..., Batch]] = {
    "pause": pause,
    "resume": resume,
    "cancel": cancel,
    "approve": approve,
    "reject": reject,
}
_THEN_RUN = ("resume", "approve")


@verb
@click.argument(
    "action", type=click.Choice(["list", "show", *_ACTIONS]), default="list", required=False
)
@click.argument("batch_id", metavar="[BATCH]", required=False)
@click.option("--reason", help="the reason; stored in the audit")
@BY
@click.option("--later", is_flag=True, help="resume, approve: let the next redrive run it")
@limited(20, "list: number of batches, the latest first")
def command(
    settings: Settings,
    action: str,
    batch_id: str | None,
    reason: str | None,
    by: str,
    later: bool,
    limit: int,
) -> Answer[Any]:
    """Batches of redrives and replays: list, show, pause, resume, cancel, approve, reject.

    BATCH is an id or its first digits. A paused batch publishes nothing more; outcomes of what
    it published are still recorded. A resumed or approved batch runs here at once, and each group
    starts with one redrive again. `resume` also continues a batch whose run was killed. What a
    cancelled batch did not publish stays pending.
    """
    if action == "list":
        found = list_batches(settings, limit)
        return Answer({"batches": found}, lambda _: _list(found))
    if not batch_id:
        raise click.UsageError(f"Give the batch to {action}: `dlq batches` lists them.")
    if action == "show":
        batch = show_batch(settings, batch_id)
        history = audit_trail(settings, about=batch.id, action="redrive")
        return Answer({"batch": batch, "history": history}, lambda _: _show(batch, history))
    batch = _ACTIONS[action](settings, batch_id, by=by, reason=reason)
    if action in _THEN_RUN and not later:
        return carried_out(settings, batch.id, by)
    said = f"The batch {batch.id} is {batch.state}."
    return Answer(batch, lambda _: console.print(said, soft_wrap=True))


def _list(found: list[Batch]) -> None:
    if not found:
        console.print("No redrive has been planned yet: see dlq redrive --help")
        return
    print_table(
        "Batches of redrives and replays",
        ["batch", "kind", "state", "planned", "succeeded", "at", "by", "why"],
        [
            (
                batch.id[:8],
                batch.kind,
                batch.state,
                batch.planned,
                batch.outcomes.get("succeeded", 0),
                batch.created_at,
                batch.requested_by,
                batch.reason,
            )
            for batch in found
        ],
        note="Details: dlq batches show BATCH",
        drop=["by", "at"],
    )


def _show(batch: Batch, history: list[dict[str, Any]]) -> None:
    for name, value in batch.as_dict().items():
        if value not in (None, {}):
            console.print(f"  [cyan]{name:<14}[/cyan] {_told(value)}", soft_wrap=True)
    console.print()
    print_table(
        "History",
        ["at", "what", "by", "why"],
        [(row["at"], row["action"], row["actor"], row["reason"]) for row in reversed(history)],
    )


def _told(value: object) -> str:
    if isinstance(value, dict):
        return safe(", ".join(f"{name} {cell(item)}" for name, item in value.items()))
    return safe(", ".join(value)) if isinstance(value, list) else cell(value)
