"""The failures of each group in the last seven days, small enough for a table cell."""

from datetime import datetime, timedelta

import polars as pl

from sahool_dlq.analysis.report.trend import PARTS, Trend

__all__ = ["STEP", "group_trends", "trend_rows"]

STEP = timedelta(hours=6)


def group_trends(failures_minutely: pl.DataFrame, now: datetime) -> dict[str, Trend]:
    """The trend of each group that failed in the last seven days."""
    ago = (pl.lit(now) - pl.col("minute_at")).dt.total_microseconds() // _micros(STEP)
    counted = (
        failures_minutely.with_columns(ago=ago.clip(0))  # clocks differ
        .filter(pl.col("ago") < PARTS)
        .group_by("group_id", "ago")
        .agg(pl.col("failure_count").sum())
    )
    trends: dict[str, list[int]] = {}
    for group, steps_ago, count in counted.iter_rows():
        trends.setdefault(group, [0] * PARTS)[PARTS - 1 - steps_ago] = count
    return {group: Trend(tuple(counts)) for group, counts in trends.items()}


def trend_rows(
    failure_groups: pl.DataFrame, failures_minutely: pl.DataFrame, now: datetime
) -> pl.DataFrame:
    """The trends for `charts.group_trends`: name, at (start of the step), failure_count."""
    trends = group_trends(failures_minutely, now)
    rows = [
        (f"{group[:4]} {error_class}", now - (PARTS - part) * STEP, count)
        for group, error_class in failure_groups.select("group_id", "error_class").iter_rows()
        if group in trends
        for part, count in enumerate(trends[group].counts)
    ]
    schema = {"name": pl.String(), "at": pl.Datetime("us", "UTC"), "failure_count": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _micros(step: timedelta) -> int:
    return step // timedelta(microseconds=1)
