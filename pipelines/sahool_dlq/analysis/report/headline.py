"""The report in one sentence: the worst problem, since when, and what helps (pure)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from sahool_dlq.analysis.report.advice import LIKELY, UNLIKELY
from sahool_dlq.analysis.report.section import seconds_as_text
from sahool_dlq.analysis.report.young import is_young

__all__ = ["headline"]

_STEP = timedelta(minutes=10)  # step for counting failures to find the start of an outbreak
_PAUSE = 3  # quiet steps that separate two outbreaks
_MORE = 3  # times the usual number is an outbreak, as in the mart `spikes`


def headline(frames: Mapping[str, pl.DataFrame], now: datetime) -> str:
    """The first thing that a person on call must know.

    `frames` are spikes, failure_groups, failures_minutely, service_health and `log`.
    """
    if frames["log"]["last_at"].item(0) is None:
        return "The lake is empty: `dlq drain` fills it."
    groups = frames["failure_groups"]
    if is_young(frames["failures_minutely"], now):
        return _first_hour(groups)
    spiking = frames["spikes"].filter(pl.col("is_spike"), pl.col("dimension") == "service")
    if not spiking.is_empty():
        return _spike(spiking.to_dicts(), frames, now)
    groups = groups.filter(pl.col("open_count") > 0)
    if groups.is_empty():
        return "No failure is open, and no service fails more than usual."
    oldest = frames["service_health"]["oldest_open_age_seconds"].max()
    age = f", the oldest for {seconds_as_text(oldest)}" if isinstance(oldest, int | float) else ""
    return f"No service fails more than usual; {_open(groups, 'failures')}{age}."


def _first_hour(groups: pl.DataFrame) -> str:
    """There is no usual rate yet: what failed, and the results."""
    waiting = groups.filter(pl.col("open_count") > 0)
    count = int(groups["failure_count"].sum())
    told = ["1 event failed" if count == 1 else f"{count:,} events failed"]
    if cured := int(groups["redrive_succeeded_count"].sum()):
        told.append(f"redrives cured {cured:,}")
    if waiting.is_empty():
        return f"{', '.join(told)}; nothing is open."
    return f"{', '.join(told)}; {_open(waiting)}{_cure(waiting)}."


def _spike(spiking: list[dict[str, Any]], frames: Mapping[str, pl.DataFrame], now: datetime) -> str:
    def its_open(spike: Mapping[str, Any]) -> pl.DataFrame:
        of_service = pl.col("services").fill_null("").str.split(", ").list.contains(spike["value"])
        return frames["failure_groups"].filter(of_service, pl.col("open_count") > 0)

    # Closed failures come last.
    worst = min(spiking, key=lambda s: (its_open(s).is_empty(), -s["failure_count"], s["value"]))
    expected, service = worst["expected_count"], worst["value"]
    found = f"{worst['failure_count']:,} in the last hour"
    if expected >= 0.1:
        how = f" {worst['failure_count'] / expected:,.0f}× more than usual"
    else:
        how, found = "", f"{found}, usually none"
    began = _since(frames["failures_minutely"], service, expected, now)
    since = f" since {_clock(began, now)}" if began else ""
    waiting = its_open(worst)
    cure = "; nothing of it is open any more" if waiting.is_empty() else _cure(waiting)
    others = ""
    if count := len(spiking) - 1:
        noun = "1 other service fails" if count == 1 else f"{count} other services fail"
        others = f"; {noun} more than usual, too"
    return f"{service} is failing{how}{since} ({found}){cure}{others}."


def _since(minutes: pl.DataFrame, service: str, expected: float, now: datetime) -> datetime | None:
    """The start of its outbreak: after the latest steps that were not worse than usual.

    `expected` is the usual number in an hour.
    """
    step = (pl.lit(now) - pl.col("minute_at")).dt.total_seconds() // _STEP.total_seconds()
    least = max(1.0, _MORE * expected * (_STEP / timedelta(hours=1)))
    steps = (
        minutes.filter(pl.col("service") == service, pl.col("minute_at") <= now)
        .group_by(step.alias("ago"))
        .agg(pl.col("failure_count").sum(), pl.col("minute_at").min())
        .filter(pl.col("failure_count") >= least)
        .sort("ago")
    )
    began, latest = None, 0
    for ago, minute in steps.select("ago", "minute_at").iter_rows():
        if ago - latest > _PAUSE:
            break
        began, latest = minute, ago
    return began


def _clock(at: datetime, now: datetime) -> str:
    at = at.astimezone(UTC)
    is_today = at.date() == now.astimezone(UTC).date()
    return f"{at:%H:%M} UTC" if is_today else f"{at:%Y-%m-%d %H:%M} UTC"


def _open(groups: pl.DataFrame, noun: str = "") -> str:
    """The number of open failures, as the beginning of a clause."""
    count = int(groups["open_count"].sum())
    what = f"{count:,} {noun[:-1] if count == 1 else noun}".rstrip()
    be = "is" if count == 1 else "are"
    return f"{what} {be} open in {groups.height:,} group{'' if groups.height == 1 else 's'}"


def _cure(groups: pl.DataFrame) -> str:
    """What a redrive may achieve for open failures that are not parked, by the chances."""
    its = groups.filter(pl.col("open_count") > pl.col("parked_count"))
    if its.is_empty():
        return ""
    weighed = (pl.col("redrive_chance") * pl.col("open_count")).sum() / pl.col("open_count").sum()
    chance = float(its.select(weighed).item())
    if chance >= LIKELY:
        return "; likely cured by a redrive"
    if chance < UNLIKELY:
        return "; a redrive is unlikely to help, so mend the cause first"
    return "; a redrive may help"
