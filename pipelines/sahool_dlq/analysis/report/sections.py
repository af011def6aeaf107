"""The content of the report: the marts as sections, in the order for a person on call."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from sahool_dlq.analysis.report import incidents, patterns, standing
from sahool_dlq.analysis.report.advice import by_urgency, next_command, to_look_at
from sahool_dlq.analysis.report.changes import changes
from sahool_dlq.analysis.report.headline import headline
from sahool_dlq.analysis.report.section import Section, seconds_as_text
from sahool_dlq.analysis.report.trends import group_trends
from sahool_dlq.analysis.report.unknowns import unknowns, verified
from sahool_dlq.deadletter.sanitize import LONGEST_NAME, STEERING

__all__ = ["NEEDED_MARTS", "as_json", "headline", "printable_frames", "sections"]

NEEDED_MARTS = (
    "failures_minutely",
    "failures_hourly",
    "spikes",
    "failure_groups",
    "incidents",
    "service_health",
    "resolution_times",
    "resolution_curves",
    "hour_of_week",
    "contributors",
    "poison_tenants",
    "poison_messages",
    "poison_consumers",
    "co_failures",
    "redrive_outcomes",
    "metrics",
)

_TOLD = (
    "incidents",
    "service_health",
    "resolution_times",
    "redrive_outcomes",
    "contributors",
    "poison_tenants",
    "poison_messages",
    "poison_consumers",
    "co_failures",
    "hour_of_week",
)


_ID_LISTS = ("groups", "causes", "brought", "cured", "brought_back")
"""Columns of ids, which are of no use if cut."""


def printable_frames(frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The frames without terminal control characters or undrawable ones, cut to the length of
    names, except lists of ids.

    See `readable`, which does the same with one text.
    """
    texts = pl.col(pl.String)
    plain = texts.str.replace_all(STEERING, "\N{REPLACEMENT CHARACTER}")
    cut = texts.exclude(_ID_LISTS).str.replace(rf"(?s)^(.{{{LONGEST_NAME - 1}}})..+$", "$1…")
    return {name: frame.with_columns(plain).with_columns(cut) for name, frame in frames.items()}


def sections(
    frames: Mapping[str, pl.DataFrame], now: datetime, most_rows: int = 12
) -> list[Section]:
    """The report as of `now`, the worst first.

    `frames` are the needed marts and `log`, and `verifications` where these are known.
    """
    kept = frames.get("verifications")
    contributors, failure_groups = frames["contributors"], frames["failure_groups"]
    return [
        _now(frames),
        standing.groups(frames, now, most_rows),
        incidents.section(frames["incidents"], now, most_rows),
        *changes(frames, now, most_rows),
        standing.health(frames["service_health"], most_rows),
        standing.resolution_times(frames["resolution_times"], most_rows),
        standing.redrive_outcomes(frames["redrive_outcomes"], most_rows),
        patterns.more_frequent(contributors, most_rows),
        patterns.hours_of_week(frames["hour_of_week"], most_rows),
        patterns.distinctive(contributors, failure_groups, most_rows),
        patterns.poison_tenants(frames["poison_tenants"], most_rows),
        patterns.poison_messages(frames["poison_messages"], most_rows),
        patterns.poison_consumers(frames["poison_consumers"], most_rows),
        patterns.failing_together(frames["co_failures"], most_rows),
        *([verified(kept)] if kept is not None and not kept.is_empty() else []),
        unknowns(frames, now),
    ]


def as_json(frames: Mapping[str, pl.DataFrame], now: datetime) -> dict[str, Any]:
    """The report for programs: numbers with the unit in their key, no prose except the headline.

    The rows are those of the marts, whose columns docs/data.md explains; a group also has its trend
    (failures in 28 steps of 6 hours, the last of which ends now) and next command.
    """
    trends = group_trends(frames["failures_minutely"], now)
    groups = [
        row
        | {
            "failure_count_by_6h": list(trend.counts)
            if (trend := trends.get(row["group_id"]))
            else [],
            "next": next_command(row),
        }
        for row in by_urgency(frames["failure_groups"]).to_dicts()
    ]
    told = {name: frames[name].to_dicts() for name in _TOLD}
    kept = frames.get("verifications")
    return {
        "as_of": now,
        "headline": headline(frames, now),
        "now": _figures(frames),
        "failure_groups": groups,
        **told,
        "verifications": [] if kept is None else kept.to_dicts(),
        "log": frames["log"].row(0, named=True),
    }


def _figures(frames: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """The strip at the top, in numbers; None if something is unknown."""
    health, groups = frames["service_health"], frames["failure_groups"]
    metrics = {(metric, label): value for metric, label, value in frames["metrics"].iter_rows()}
    return {
        "failures_per_minute_1h": metrics.get(("dlq_rate", "1 hour")) or 0.0,
        "failures_per_minute_24h": metrics.get(("dlq_rate", "24 hours")) or 0.0,
        "open_count": int(groups["open_count"].sum()),
        "open_group_count": groups.filter(pl.col("open_count") > 0).height,
        "oldest_open_seconds": health["oldest_open_age_seconds"].max(),
        "parked_count": int(groups["parked_count"].sum()),
        "redrive_success_share_24h": metrics.get(("redrive_success_rate", "24 hours")),
        "notable_group_count": to_look_at(groups).height,
        "critical_count_24h": int(health["critical_count_24h"].sum()),
    }


def _now(frames: Mapping[str, pl.DataFrame]) -> Section:
    now = _figures(frames)
    success = now["redrive_success_share_24h"]
    rows = (
        (
            "failures a minute",
            f"{now['failures_per_minute_1h']:.1f}",
            f"last hour; {now['failures_per_minute_24h']:.1f} in 24 hours",
        ),
        ("open failures", now["open_count"], f"in {now['open_group_count']:,} groups"),
        (
            "oldest open",
            seconds_as_text(now["oldest_open_seconds"]),
            f"{now['parked_count']:,} parked",
        ),
        (
            "redrives succeed",
            "–" if success is None else f"{success:.0%}",
            "of known outcomes in 24 hours",
        ),
        ("groups to look at", now["notable_group_count"], "new, escalating or regressed"),
        ("critical errors", now["critical_count_24h"], "in 24 hours"),
    )
    return Section("Now", ("what", "value", "of which"), rows)
