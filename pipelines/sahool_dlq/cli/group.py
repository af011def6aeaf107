"""`dlq group`."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from sahool_dlq.cli.output import cell, console, safe
from sahool_dlq.cli.verb import BY, Answer, verb
from sahool_dlq.errors import GroupError
from sahool_dlq.jobs.care import care_of, mute_in_words
from sahool_dlq.jobs.groups import GroupEdit, carry_words, change_group, mute_from
from sahool_dlq.jobs.redrive import known_group
from sahool_dlq.settings import Settings


@verb
@click.argument("group_id", metavar="GROUP")
@click.option("--owner", help="the person or team that takes care of it; '' removes it")
@click.option("--note", help="a text for whoever looks at it; '' removes it")
@click.option("--ticket", help="address of its ticket; '' removes it")
@click.option(
    "--label", "labels", multiple=True, help="replaces all labels; repeatable; '' removes them"
)
@click.option(
    "--mute", "until", help="no alert until: 2026-12-24, 3d, '100 more' (failures), escalating"
)
@click.option("--unmute", "is_unmuted", is_flag=True, help="allow its alerts again")
@click.option("--from", "source", help="say of it what was said of this group, all of it")
@click.option("--reason", help="the reason of a change; stored with the group and in the audit")
@BY
def command(
    settings: Settings,
    group_id: str,
    owner: str | None,
    note: str | None,
    ticket: str | None,
    labels: tuple[str, ...],
    until: str | None,
    is_unmuted: bool,
    source: str | None,
    reason: str | None,
    by: str,
) -> Answer[Any]:
    """Show or change who owns a group: its owner, note, ticket, labels, and whether it is muted.

    A muted group fires no alert; its failures are drained and redriven as before. The mute ends by
    itself. An owner given here is stronger than the rules of ownership.
    """
    group_id = known_group(settings, group_id)
    if until is not None and is_unmuted:
        raise GroupError("Give --mute or --unmute, not both.")
    edit = GroupEdit(
        owner,
        note,
        ticket,
        labels or None,
        None if until is None else mute_from(until, datetime.now(UTC)),
        is_unmuted,
    )
    if source is not None:
        if edit != GroupEdit():
            raise GroupError("Give --from alone: it carries all that was said of that group.")
        carry = carry_words(settings, source, group_id, actor=by, reason=reason or "")
        row = asyncio.run(carry)
    elif edit == GroupEdit() and reason is None:
        row = care_of(settings, group_id)
    else:
        change = change_group(settings, group_id, edit, actor=by, reason=reason or "")
        row = asyncio.run(change)
    return Answer({"group": row}, lambda _: _show(row))


def _show(row: Mapping[str, Any]) -> None:
    muted = mute_in_words(row)
    facts = {
        "group": row["group_id"],
        "owner": row.get("owner") and f"{row['owner']} ({_SOURCES[row['owner_source']]})",
        "ticket": row.get("ticket"),
        "labels": ", ".join(row.get("labels") or ()),
        "muted": muted and f"{muted}, by {row['muted_by']}: {row['mute_reason']}",
        "note": row.get("note"),
    }
    for name, value in facts.items():
        if value:
            console.print(f"  [cyan]{name:<8}[/cyan] {cell(value)}", soft_wrap=True)
    if not any(value for name, value in facts.items() if name != "group"):
        console.print("Nobody owns it. --owner, --note, --ticket, --label and --mute change that.")
    console.print(f"[dim]Its failures: dlq show {safe(row['group_id'])}[/dim]")


_SOURCES = {"person": "named by a person", "rule": "by a rule", "CODEOWNERS": "by CODEOWNERS"}
