"""What `dlq discard`, `resolve`, `park` and `unpark` have in common."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from sahool_dlq.cli.output import console, print_table, progress, safe
from sahool_dlq.cli.plan import LIMIT_REACHED
from sahool_dlq.cli.selecting import is_agreed, selecting
from sahool_dlq.cli.verb import BY, Answer, tell, verb, wants_json
from sahool_dlq.jobs.decisions import decide, preview_decision
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.decisions import Affected, Decision, DecisionReport
from sahool_dlq.settings import Settings

_MANY = 10  # from here on a person at a terminal is asked


def deciding(
    decision: Decision, explanation: str, *flags: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> click.Command:
    """The verb that publishes this decision; `flags` are options that only this verb has."""

    @selecting()
    @click.option(
        "--reason", required=True, help="the reason; stored with the failure and in the audit"
    )
    @BY
    @click.option("--yes", is_flag=True, help="do not ask for confirmation")
    @click.option("--dry-run", is_flag=True, help="show what would change; change nothing")
    def command(
        settings: Settings,
        selection: Selection,
        reason: str,
        by: str,
        yes: bool,
        dry_run: bool,
        in_version: str | None = None,
    ) -> Answer[Any] | None:
        found, left = preview_decision(settings, selection, decision)
        preview = _preview(found, left, decision)
        if dry_run:
            return preview
        if len(found) >= _MANY and not wants_json():
            tell(preview.report, preview.show)
            if not is_agreed(f"{len(found):,} failures become {decision}. Go on?", is_yes=yes):
                console.print("Nothing was changed.")
                return None
        with progress("Deciding") as advance:
            deciding = decide(
                *(settings, selection, decision),
                actor=by,
                reason=reason,
                in_version=in_version,
                progress=advance,
            )
            report = asyncio.run(deciding)
        return Answer(report, lambda _: _show(report, settings.masked(reason), settings.masked(by)))

    for flag in reversed(flags):
        command = flag(command)
    command.__doc__ = explanation
    command.__name__ = decision
    return verb(command)


def _show(report: DecisionReport, reason: str, by: str) -> None:
    for failure, status in report.left.items():
        console.print(f"{failure} stays {status}.")
    if report.changed:
        said = f"{report.changed:,} failures are {report.decision} now: {reason!r}, by {by}."
        console.print(said, markup=False)
    elif not report.left and not report.in_version:
        console.print(f"None of these failures can be {report.decision}.")
    if report.in_version:
        version = safe(report.in_version)
        console.print(
            f"It counts as repaired in {version}: later failures of older versions are known, and"
            f" one of {version} or newer is a regression."
        )
    if report.limit_reached:
        console.print(LIMIT_REACHED)


def _preview(found: list[Affected], left: dict[str, str], decision: Decision) -> Answer[Any]:
    counts = Counter((each.group_id, each.error_type, each.service) for each in found)
    rows = [(*group, count) for group, count in counts.most_common()]
    keys = ("group_id", "error_type", "service", "count")
    groups = [dict(zip(keys, row, strict=True)) for row in rows]
    title = f"{len(found):,} failures would become {decision}"
    columns = ["group", "error type", "service", "failures"]
    return Answer(
        {"decision": decision, "would_change": len(found), "groups": groups, "left": left},
        lambda _: print_table(title, columns, rows),
    )
