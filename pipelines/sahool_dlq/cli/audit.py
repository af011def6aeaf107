"""`dlq audit`."""

import json
from typing import Any

import click

from sahool_dlq.cli.output import cell, console, safe
from sahool_dlq.cli.verb import Answer, limited, verb
from sahool_dlq.deadletter.group_changes import change_in_words, change_of
from sahool_dlq.deadletter.replays import REPLAY
from sahool_dlq.jobs.decisions import audit_trail
from sahool_dlq.settings import Settings


@verb
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--actor", help="only actions of this person or schedule")
@click.option("--action", help="only actions that begin with this: redrive, triage.discarded, …")
@limited(50, "number of entries, the latest first")
def command(
    settings: Settings, id_: str | None, actor: str | None, action: str | None, limit: int
) -> Answer[Any]:
    """Show who redrove, edited, discarded or parked what, when, why, and with which result.

    With the ID of a failure, of a batch (the first digits are enough) or of a group (all 16), show
    what was done to it. Newest first.
    """
    rows = audit_trail(settings, about=id_, actor=actor, action=action, limit=limit)
    return Answer({"audit": rows}, lambda _: _show(rows))


def _show(rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print("No redrive and no decision matches.")
        return
    for row in rows:
        count, batch = row["detail"].get("failures"), row["batch_id"]
        what = "events" if row["detail"].get("kind") == REPLAY else "failures"
        if isinstance(count, dict):  # of an erasure, by status
            count = sum(count.values())
        facts = [
            f"{cell(row['at'])}  [bold]{safe(row['action'])}[/bold]",
            batch and batch[:8],
            f"by {safe(row['actor'])}",
            count is not None and f"{count:,} {what}",
            safe(_result(row["detail"])),
        ]
        console.print("  ".join(fact for fact in facts if fact), soft_wrap=True)
        if row["reason"]:
            console.print(f"    {safe(row['reason'])}", soft_wrap=True)
    console.print("[dim]More with --json: ids, selections, edits, database user.[/dim]")


def _result(detail: dict[str, Any]) -> str:
    if "changed" in detail:
        return f"{detail['changed']:,} changed"
    if "group" in detail:
        said = json.dumps(detail.get("changes", {}))
        change = change_of("triage.group", detail["group"], said)
        return f"group {detail['group']} {change_in_words(change) if change else ''}".rstrip()
    if "in_version" in detail:
        return f"in version {detail['in_version']}"
    if "to" in detail:
        where = f"to {detail['to']}, {'masked' if detail['masked'] else 'as they were'}"
        return f"{sum(detail['copied'].values()):,} copied {where}" if "copied" in detail else where
    if "successes" in detail:
        return f"{detail['successes']:,} successes"
    if outcomes := detail.get("outcomes"):
        return ", ".join(f"{count:,} {state}" for state, count in outcomes.items())
    return json.dumps(detail["patch"]) if detail.get("patch") else ""
