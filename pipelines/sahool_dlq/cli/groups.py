"""`dlq groups`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from sahool_dlq.alerts.text import quantity
from sahool_dlq.analysis.report.advice import (
    care_in_words,
    chance_in_words,
    next_command,
    state_in_words,
    what_failed,
)
from sahool_dlq.analysis.report.section import seconds_as_text
from sahool_dlq.analysis.report.trend import Trend
from sahool_dlq.cli.as_of import AS_OF, moment
from sahool_dlq.cli.output import console, print_line, safe
from sahool_dlq.cli.verb import Answer, known_lake, limited, verb
from sahool_dlq.jobs.lookup import chosen_groups, group_as_dict
from sahool_dlq.settings import Settings

STATES = {
    "escalating": "bold red",
    "regressed": "bold yellow",
    "new": "bold cyan",
    "ongoing": "bold",
    "fixed": "green",
    "resolved": "green",
}

BARS = "Bars: 7 days in steps of 6 hours."


@verb
@click.option("--state", type=click.Choice(list(STATES)))
@click.option("--service", help="only groups of this service")
@click.option("--owner", help="only groups of this owner")
@limited(20, "maximum number of groups")
@AS_OF
def command(
    settings: Settings,
    state: str | None,
    service: str | None,
    owner: str | None,
    limit: int,
    as_of: str | None,
) -> Answer[Any]:
    """List groups of similar failures, the most urgent first.

    Each with its error, its age, its state, and who is affected.
    """
    known_lake(settings)
    now = moment(settings, as_of)
    groups, trends = chosen_groups(settings, now, state=state, service=service, owner=owner)
    told = [group_as_dict(row, trends.get(row["group_id"])) for row in groups]
    return Answer({"groups": told}, lambda _: _show(groups, trends, now, limit))


def _show(
    groups: Sequence[Mapping[str, Any]], trends: Mapping[str, Trend], now: datetime, limit: int
) -> None:
    if not groups:
        console.print("No failures match. `dlq drain` fetches new ones.")
        return
    open_count = sum(row["open_count"] > 0 for row in groups)
    console.print(f"[bold]{len(groups)} failure groups[/bold], {open_count} with open failures\n")
    print_groups(groups[:limit], trends, now)
    _print_shared_causes(groups)
    if len(groups) > limit:
        console.print(f"[dim]{len(groups) - limit:,} more: --limit[/dim]")
    console.print(f"[dim]{BARS} Details: dlq show GROUP[/dim]")


def shared_causes(groups: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The open groups by the cause that several of them share, most open failures first."""
    by_cause: dict[str, list[Mapping[str, Any]]] = {}
    for row in groups:
        if row["open_count"] and row["cause_id"]:
            by_cause.setdefault(row["cause_id"], []).append(row)
    shared = {cause: rows for cause, rows in by_cause.items() if len(rows) > 1}
    return dict(sorted(shared.items(), key=lambda item: (-_open_in(item[1]), item[0])))


def _open_in(groups: Iterable[Mapping[str, Any]]) -> int:
    return sum(row["open_count"] for row in groups)


def _print_shared_causes(groups: Sequence[Mapping[str, Any]]) -> None:
    for cause, rows in shared_causes(groups).items():
        print_line(f"[bold]{len(rows)} groups share one cause[/bold], {_open_in(rows):,} open")
        print_line(f"  dlq redrive --where \"cause_id = '{cause}'\" --dry-run")
        console.print()


def print_groups(
    groups: Iterable[Mapping[str, Any]], trends: Mapping[str, Trend], now: datetime
) -> None:
    """Three lines or more for each, which fit on a terminal of 80 columns."""
    for row in groups:
        ago = seconds_as_text(max((now - row["last_seen_at"]).total_seconds(), 0))
        style = STATES[row["state"]]
        print_line(f"[{style}]{safe(state_in_words(row))}[/]  {safe(what_failed(row))}")
        versions = f" {safe(row['versions'])}" if row["versions"] else ""
        if (fix := row["resolved_in_version"]) and row["state"] not in ("fixed", "resolved"):
            versions += f" · resolved in {safe(fix)}"
        print_line(
            f"  [cyan]{row['group_id']}[/cyan]  {row['open_count']:,} open of"
            f" {row['failure_count']:,} · {quantity(row['tenant_count'], 'tenants')} ·"
            f" {safe(row['services'])}{versions} · {ago} ago"
        )
        trend = trends.get(row["group_id"], "none in 7 days")
        print_line(f"  [cyan]{trend!s:<28}[/cyan]  redrive {chance_in_words(row)}")
        if care := care_in_words(row):
            print_line(f"  {safe(care)}")
        if command := next_command(row):
            print_line(f"  {safe(command)}")
        console.print()
