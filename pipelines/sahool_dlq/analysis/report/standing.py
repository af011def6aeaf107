"""The current state, as sections of rows: groups, health, time to resolution, redrives (pure)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from sahool_dlq.analysis.marts.resolution import IMPOSSIBLE
from sahool_dlq.analysis.report.advice import (
    by_urgency,
    care_in_words,
    chance_in_words,
    next_command,
    state_in_words,
    what_failed,
)
from sahool_dlq.analysis.report.section import Section, seconds_as_text
from sahool_dlq.analysis.report.trends import group_trends

__all__ = ["groups", "health", "redrive_outcomes", "resolution_times"]

_DAY_SECONDS = 86_400


def groups(frames: Mapping[str, pl.DataFrame], now: datetime, most_rows: int) -> Section:
    frame = frames["failure_groups"]
    trends = group_trends(frames["failures_minutely"], now)
    shown = by_urgency(frame).head(most_rows).to_dicts()
    care = [care_in_words(row) for row in shown]
    owned = ("owner",) if any(care) else ()
    rows = tuple(
        (
            row["group_id"],
            state_in_words(row),
            row["failure_count"],
            row["open_count"],
            row["tenant_count"],
            row["services"],
            *((said,) if owned else ()),
            trends.get(row["group_id"]),
            chance_in_words(row),
            what_failed(row, 120),
            next_command(row),
        )
        for row, said in zip(shown, care, strict=True)
    )
    columns = (
        "group", "state", "failures", "open", "tenants", "services", *owned, "7 days",
        "a redrive works", "what", "next",
    )  # fmt: skip
    note = f"{frame.height:,} groups in all. A curve has 28 steps of 6 hours and its own height."
    return Section("Failure groups", columns, rows, note)


def health(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            row["service"],
            row["versions"],
            round(row["score"]),
            row["alert"] or "unknown",
            row["failure_count_24h"],
            row["open_count"],
            row["succeeded_count_24h"] if row["has_totals"] else None,
            _rate(row),
            seconds_as_text(row["oldest_open_age_seconds"]),
        )
        for row in frame.sort("score", "service").head(most_rows).to_dicts()
    )
    columns = (
        "service", "version", "score", "alert", "failures 24 h", "open", "succeeded",
        "failure rate", "oldest open",
    )  # fmt: skip
    note = (
        "Failure rate: dead letters of all finished events in 24 h, with its 95 % interval. The"
        " score is for display; alerts go by the burn rate of the objective."
    )
    return Section("Health per service", columns, rows, note)


def _rate(row: dict[str, Any]) -> str:
    if row["failure_rate_24h"] is None:
        return "unknown"
    # The lower end of an interval may be a little below zero.
    shares = [abs(row[f"failure_rate_24h{end}"]) for end in ("", "_low", "_high")]
    digits = 3 if shares[2] < 0.001 else 2 if shares[2] < 0.01 else 1
    rate, low, high = (f"{share:.{digits}%}" for share in shares)
    return f"{rate} ({low} to {high})"


def resolution_times(frame: pl.DataFrame, most_rows: int) -> Section:
    chosen = frame.filter(pl.col("dimension").is_in(["error_class", "overall"]))
    chosen = chosen.sort(pl.col("dimension") == "overall", pl.col("n"), descending=True)
    rows = tuple(
        (
            row["value"],
            row["n"],
            row["events"],
            f"{row['open_share']:.1%}",
            seconds_as_text(row["median_seconds"], "not reached"),
            seconds_as_text(row["p90_seconds"], "not reached"),
            seconds_as_text(_mean_of_a_day(row), "not reached"),
            seconds_as_text(row["follow_up_seconds"]),
        )
        for row in chosen.head(most_rows).to_dicts()
    )
    columns = (
        "error type", "cases", "closed", "still open", "median", "90 %", "mean of the first 24 h",
        "watched for",
    )  # fmt: skip
    note = (
        "Kaplan-Meier: cases that are still open count as not yet closed. Not reached: in the time"
        " for which they were watched, fewer than half, or nine tenths, were closed; or they were"
        " watched for less than the 24 h."
    )
    return Section("Time to resolution", columns, rows, note)


def _mean_of_a_day(row: dict[str, Any]) -> float | None:
    """The mean open time within 24 h; None if it was not observed that long and some are open."""
    is_known = row["follow_up_seconds"] >= _DAY_SECONDS or not row["open_share"]
    return row["rmst_24h_seconds"] if is_known else None


def redrive_outcomes(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            row["group_id"],
            row["error_class"],
            row["attempt_count"],
            row["succeeded_count"],
            row["failed_again_count"],
            row["outcome_unknown_count"] + row["waiting_count"],
            sum(row[name] for name in IMPOSSIBLE),
        )
        for row in frame.head(most_rows).to_dicts()
    )
    columns = ("group", "error type", "redrives", "succeeded", "failed", "unknown", "impossible")
    note = "Impossible: no stream takes the subject, not allowed, too old, or the bytes are gone."
    return Section("Redrive outcomes", columns, rows, note)
