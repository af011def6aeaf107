"""What `dlq discard`, `resolve`, `park` and `unpark` have in common."""

import asyncio
import getpass
from collections import Counter

import click

from sahool_dlq.cli.output import console, print_json, print_table, progress_bar
from sahool_dlq.cli.plan import LIMIT_REACHED
from sahool_dlq.cli.selecting import is_agreed, selecting
from sahool_dlq.cli.verb import verb
from sahool_dlq.jobs.decisions import decide, preview_decision
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.decisions import Affected, Decision
from sahool_dlq.settings import Settings

_MANY = 10  # from here on a person at a terminal is asked


def deciding(decision: Decision, explanation: str) -> click.Command:
    """The verb that publishes this decision."""

    @selecting
    @click.option(
        "--reason", required=True, help="the reason; stored with the failure and in the audit"
    )
    @click.option("--by", default=getpass.getuser, help="who decides [your login name]")
    @click.option("--yes", is_flag=True, help="do not ask for confirmation")
    @click.option("--dry-run", is_flag=True, help="show what would change; change nothing")
    def command(
        settings: Settings,
        is_json: bool,
        selection: Selection,
        reason: str,
        by: str,
        yes: bool,
        dry_run: bool,
    ) -> None:
        found, left = preview_decision(settings, selection, decision)
        if dry_run:
            _show(found, left, decision, is_json)
            return
        if len(found) >= _MANY and not is_json:
            _show(found, left, decision, is_json)
            if not is_agreed(f"{len(found):,} failures become {decision}. Go on?", is_yes=yes):
                console.print("Nothing was changed.")
                return
        with progress_bar("Deciding") as bar:
            task = bar.add_task("decide", total=None)
            report = asyncio.run(
                decide(
                    settings,
                    selection,
                    decision,
                    actor=by,
                    reason=reason,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
            )
        if is_json:
            print_json(report.as_dict())
            return
        for failure, status in report.left.items():
            console.print(f"{failure} stays {status}.")
        if report.changed or not report.left:
            console.print(
                f"{report.changed:,} failures are {decision} now:"
                f" {settings.masked(reason)!r}, by {settings.masked(by)}."
                if report.changed
                else f"None of these failures can be {decision}.",
                markup=False,
            )
        if report.limit_reached:
            console.print(LIMIT_REACHED)

    command.__doc__ = explanation
    command.__name__ = decision
    return verb(command)


def _show(found: list[Affected], left: dict[str, str], decision: Decision, is_json: bool) -> None:
    groups = Counter((each.group_id, each.error_type, each.service) for each in found)
    rows = [(*group, count) for group, count in groups.most_common()]
    if is_json:
        keys = ("group_id", "error_type", "service", "count")
        print_json(
            {
                "decision": decision,
                "would_change": len(found),
                "groups": [dict(zip(keys, row, strict=True)) for row in rows],
                "left": left,
            }
        )
        return
    print_table(
        f"{len(found):,} failures would become {decision}",
        ["group", "error type", "service", "failures"],
        rows,
    )
