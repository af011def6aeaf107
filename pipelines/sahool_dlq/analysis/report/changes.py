"""What changed since yesterday, as sections of rows (pure)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from sahool_dlq.analysis.report.advice import what_failed
from sahool_dlq.analysis.report.section import Section

_DAY = timedelta(days=1)
_NEWS = {
    "regressed": "came back after a person resolved it",
    "new": "new",
    "escalating": "comes more often than ever",
}


def changes(marts: Mapping[str, pl.DataFrame], now: datetime, most_rows: int = 12) -> list[Section]:
    """Groups that are new, came back, grew or ended within a day before `now`; failures per
    service.
    """
    return [
        _groups(marts["failure_groups"], now, most_rows),
        _services(marts["failures_hourly"], now, most_rows),
    ]


def _groups(frame: pl.DataFrame, now: datetime, most_rows: int) -> Section:
    rows = []
    for group in frame.sort("failure_count", descending=True).to_dicts():
        if change := _change(group, now):
            what = what_failed(group, 90)
            rows.append((group["group_id"], change, group["failure_count_24h"], what))
    note = f"{len(rows)} groups in all." if len(rows) > most_rows else ""
    columns = ("group", "since yesterday", "failures 24 h", "what")
    return Section("What changed since yesterday", columns, tuple(rows[:most_rows]), note)


def _change(group: Mapping[str, Any], now: datetime) -> str | None:
    if group["state"] == "resolved":
        ended = group["last_resolved_at"]
        return "resolved, nothing is open" if ended and ended > now - _DAY else None
    if group["state"] == "regressed" and (failed_in := group["regressed_in_version"]):
        return f"failed in {failed_in} after a person resolved it in {group['resolved_in_version']}"
    return _NEWS.get(group["state"])


def _services(frame: pl.DataFrame, now: datetime, most_rows: int) -> Section:
    """The last 24 whole hours beside the 24 before, so that equal times are compared."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    last = pl.col("hour_at").is_between(hour - _DAY, hour, closed="left")
    before = pl.col("hour_at").is_between(hour - 2 * _DAY, hour - _DAY, closed="left")
    counted = (
        frame.filter(last | before)
        .group_by("service")
        .agg(
            pl.col("failure_count").filter(last).sum().alias("last"),
            pl.col("failure_count").filter(before).sum().alias("before"),
        )
        .sort(pl.max_horizontal("last", "before"), "service", descending=[True, False])
    )
    rows = tuple(
        (row["service"], row["before"], row["last"], f"{row['last'] - row['before']:+,}")
        for row in counted.head(most_rows).to_dicts()
    )
    note = f"Whole hours: the 24 before {hour:%Y-%m-%d %H:%M} UTC, and the 24 before those."
    if not rows:
        note = f"No failure in the 48 hours before {hour:%Y-%m-%d %H:%M} UTC."
    columns = ("service", "failures the day before", "failures of 24 h", "change")
    return Section("Failures per service, a day and the day before", columns, rows, note)
