"""The report in one sentence: what is worst now, since when, and what helps (pure)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from sahool_dlq.analysis.report.advice import LIKELY, UNLIKELY
from sahool_dlq.analysis.report.section import seconds_as_text

__all__ = ["headline"]

_PAUSE = timedelta(minutes=30)  # without a failure: what comes after it is another outbreak


def headline(frames: Mapping[str, pl.DataFrame], now: datetime) -> str:
    """What a person on call is to know first.

    `frames` are spikes, failure_groups, failures_minutely, service_health and `log`.
    """
    if frames["log"]["last_at"].item(0) is None:
        return "The lake is empty: `dlq drain` fills it."
    spiking = (
        frames["spikes"]
        .filter(pl.col("is_spike"), pl.col("dimension") == "service")
        .sort("failure_count", "value", descending=[True, False])
        .to_dicts()
    )
    if spiking:
        return _spike(spiking, frames, now)
    groups = frames["failure_groups"].filter(pl.col("open_count") > 0)
    if groups.is_empty():
        return "No failure is open, and no service fails more than usual."
    oldest = frames["service_health"]["oldest_open_age_seconds"].max()
    age = f", the oldest for {seconds_as_text(oldest)}" if isinstance(oldest, int | float) else ""
    open_count = int(groups["open_count"].sum())
    return (
        f"No service fails more than usual; {_failures(open_count)} open in"
        f" {groups.height:,} group{'' if groups.height == 1 else 's'}{age}."
    )


def _spike(spiking: list[dict[str, Any]], frames: Mapping[str, pl.DataFrame], now: datetime) -> str:
    worst, count = spiking[0], len(spiking) - 1
    expected, service = worst["expected_count"], worst["value"]
    found = f"{worst['failure_count']:,} in the last hour"
    if expected >= 0.1:
        how = f" {worst['failure_count'] / expected:,.0f}× more than usual"
    else:
        how, found = "", f"{found}, usually none"
    since = _since(frames["failures_minutely"], service, now)
    began = f" since {_clock(since, now)}" if since else ""
    others = ""
    if count:
        noun = "1 other service fails" if count == 1 else f"{count} other services fail"
        others = f"; {noun} more than usual, too"
    cure = _cure(frames["failure_groups"], service)
    return f"{service} is failing{how}{began} ({found}){cure}{others}."


def _since(minutes: pl.DataFrame, service: str, now: datetime) -> datetime | None:
    """When its failures of the last hour began: after the latest pause before them."""
    at = (
        minutes.filter(pl.col("service") == service, pl.col("minute_at") <= now)["minute_at"]
        .unique()
        .sort(descending=True)
        .to_list()
    )
    began = None
    for minute in at:
        if began is not None and began - minute > _PAUSE:
            break
        began = minute
    return began


def _clock(at: datetime, now: datetime) -> str:
    at = at.astimezone(UTC)
    is_today = at.date() == now.astimezone(UTC).date()
    return f"{at:%H:%M} UTC" if is_today else f"{at:%Y-%m-%d %H:%M} UTC"


def _cure(groups: pl.DataFrame, service: str) -> str:
    """What a redrive of what is open there may do, by the chances of its groups."""
    its = groups.filter(
        pl.col("open_count") > pl.col("parked_count"),
        pl.col("services").fill_null("").str.split(", ").list.contains(service),
    )
    if its.is_empty():
        return ""
    weighed = (pl.col("redrive_chance") * pl.col("open_count")).sum() / pl.col("open_count").sum()
    chance = float(its.select(weighed).item())
    if chance >= LIKELY:
        return "; likely cured by a redrive"
    if chance < UNLIKELY:
        return "; a redrive is unlikely to help, so mend the cause first"
    return "; a redrive may help"


def _failures(count: int) -> str:
    return "1 failure is" if count == 1 else f"{count:,} failures are"
