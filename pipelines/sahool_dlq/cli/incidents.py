"""`dlq incidents`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from sahool_dlq.analysis.report.incidents import duration
from sahool_dlq.analysis.report.section import seconds_as_text
from sahool_dlq.cli.as_of import AS_OF, moment
from sahool_dlq.cli.output import console, print_table
from sahool_dlq.cli.verb import Answer, known_lake, limited, verb
from sahool_dlq.jobs.incidents import chosen_incidents, incident_as_dict
from sahool_dlq.settings import Settings


@verb
@click.option("--service", help="only incidents that this service was in")
@click.option("--open", "is_open", is_flag=True, help="only those that last or have open failures")
@limited(20, "maximum number of incidents")
@AS_OF
def command(
    settings: Settings, service: str | None, is_open: bool, limit: int, as_of: str | None
) -> Answer[Any]:
    """List incidents of the last 13 weeks, the newest first.

    An incident is what several groups of failures have in common: one cause, or a beginning within
    minutes that is more than chance. Services are in the order in which they joined. Reads the
    lake.
    """
    known_lake(settings)
    now = moment(settings, as_of)
    rows = chosen_incidents(settings, now, service, is_open=is_open)
    told = [incident_as_dict(row) for row in rows]
    return Answer({"incidents": told}, lambda _: _show(rows, now, limit))


def _show(rows: Sequence[Mapping[str, Any]], now: datetime, limit: int) -> None:
    if not rows:
        console.print("No incident matches: no group failed more than usual in 13 weeks.")
        return
    print_table(
        f"{len(rows):,} incidents" if len(rows) > 1 else "1 incident",
        [
            "incident", "from", "lasted", "services", "failures", "open", "delay", "tenants",
            "cured", "peak a minute",
        ],
        [
            (
                row["incident_id"],
                f"{row['from_at']:%Y-%m-%d %H:%M}Z",
                duration(row, now) if row["until_at"] else "it lasts",
                row["services"],
                row["failure_count"],
                row["open_count"],
                seconds_as_text(row["delay_seconds"]),
                row["tenant_count"],
                row["cured_count"],
                row["peak_count"],
            )
            for row in rows[:limit]
        ],
        note="Services in the order in which they joined; delay: of all its events together."
        " Details: dlq incident ID",
        drop=["peak a minute", "cured", "tenants", "delay", "from"],
    )  # fmt: skip
    if len(rows) > limit:
        console.print(f"[dim]{len(rows) - limit:,} more: --limit[/dim]")
