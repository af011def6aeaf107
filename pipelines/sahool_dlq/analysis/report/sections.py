"""What the report says: the marts as sections, in the order in which a person on call asks."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from sahool_dlq.analysis.marts.resolution import IMPOSSIBLE
from sahool_dlq.analysis.report.advice import by_urgency, chance_in_words, next_command, what_failed
from sahool_dlq.analysis.report.changes import changes
from sahool_dlq.analysis.report.headline import headline
from sahool_dlq.analysis.report.section import Section, seconds_as_text
from sahool_dlq.analysis.report.trends import group_trends
from sahool_dlq.analysis.report.unknowns import unknowns
from sahool_dlq.deadletter.sanitize import LONGEST_NAME, STEERING

__all__ = ["NEEDED_MARTS", "as_json", "headline", "printable_frames", "sections"]

NEEDED_MARTS = (
    "failures_minutely",
    "failures_hourly",
    "spikes",
    "failure_groups",
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

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_CERTAIN = 1e-4  # a week so uneven comes by chance less often than this
_DAY_SECONDS = 86_400
_MOST_WRONG = 3  # findings that are told whole
_EVIDENT = ("service", "event_type")  # a group is its service's anyway


def printable_frames(frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The frames without characters that steer a terminal or that nothing can draw, cut to names.

    See `readable`, which does the same with one text.
    """
    texts = pl.col(pl.String).str.replace_all(STEERING, "\N{REPLACEMENT CHARACTER}")
    cut = texts.str.replace(rf"(?s)^(.{{{LONGEST_NAME - 1}}})..+$", "$1…")
    return {name: frame.with_columns(cut) for name, frame in frames.items()}


def sections(
    frames: Mapping[str, pl.DataFrame], now: datetime, most_rows: int = 12
) -> list[Section]:
    """The report as of `now`, the worst first.

    `frames` are the needed marts and `log`, and `verifications` where these are known.
    """
    verified = frames.get("verifications")
    return [
        _now(frames),
        _groups(frames, now, most_rows),
        *changes(frames, now, most_rows),
        _health(frames["service_health"], most_rows),
        _resolution(frames["resolution_times"], most_rows),
        _redrives(frames["redrive_outcomes"], most_rows),
        _recent(frames["contributors"], most_rows),
        _hours(frames["hour_of_week"], most_rows),
        _by_group(frames["contributors"], frames["failure_groups"], most_rows),
        _tenants(frames["poison_tenants"], most_rows),
        _messages(frames["poison_messages"], most_rows),
        _consumers(frames["poison_consumers"], most_rows),
        _together(frames["co_failures"], most_rows),
        *([_verified(verified)] if verified is not None and not verified.is_empty() else []),
        unknowns(frames, now),
    ]


def as_json(frames: Mapping[str, pl.DataFrame], now: datetime) -> dict[str, Any]:
    """The report for programs: numbers whose unit their key says, no prose but the headline.

    The rows are those of the marts, whose columns docs/data.md explains; a group has its trend
    (failures in 28 steps of 6 hours, the last of which ends now) and next command besides.
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
    verified = frames.get("verifications")
    return {
        "as_of": now,
        "headline": headline(frames, now),
        "now": _figures(frames),
        "failure_groups": groups,
        **told,
        "verifications": [] if verified is None else verified.to_dicts(),
        "log": frames["log"].row(0, named=True),
    }


def _figures(frames: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """The strip on top, in numbers; None where something is not known."""
    health, groups = frames["service_health"], frames["failure_groups"]
    metrics = {(metric, label): value for metric, label, value in frames["metrics"].iter_rows()}
    open_groups = groups.filter(pl.col("open_count") > 0)
    notable = open_groups.filter(pl.col("state").is_in(["new", "escalating", "regressed"]))
    return {
        "dead_letters_per_minute_1h": metrics.get(("dlq_rate", "1 hour")) or 0.0,
        "dead_letters_per_minute_24h": metrics.get(("dlq_rate", "24 hours")) or 0.0,
        "open_count": int(groups["open_count"].sum()),
        "open_group_count": open_groups.height,
        "oldest_open_seconds": health["oldest_open_age_seconds"].max(),
        "parked_count": int(groups["parked_count"].sum()),
        "redrive_success_share_24h": metrics.get(("redrive_success_rate", "24 hours")),
        "notable_group_count": notable.height,
        "critical_count_24h": int(health["critical_count_24h"].sum()),
    }


def _now(frames: Mapping[str, pl.DataFrame]) -> Section:
    now = _figures(frames)
    success = now["redrive_success_share_24h"]
    rows = (
        (
            "dead letters a minute",
            f"{now['dead_letters_per_minute_1h']:.1f}",
            f"last hour; {now['dead_letters_per_minute_24h']:.1f} in 24 hours",
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
            "of those of 24 hours whose outcome is known",
        ),
        ("groups to look at", now["notable_group_count"], "new, escalating or regressed"),
        ("critical errors", now["critical_count_24h"], "in 24 hours"),
    )
    return Section("Now", ("what", "value", "of which"), rows)


def _groups(frames: Mapping[str, pl.DataFrame], now: datetime, most_rows: int) -> Section:
    frame = frames["failure_groups"]
    trends = group_trends(frames["failures_minutely"], now)
    rows = tuple(
        (
            row["group_id"],
            row["state"],
            row["failure_count"],
            row["open_count"],
            row["tenant_count"],
            row["services"],
            trends.get(row["group_id"]),
            chance_in_words(row),
            what_failed(row)[:120],
            next_command(row),
        )
        for row in by_urgency(frame).head(most_rows).to_dicts()
    )
    columns = (
        "group", "state", "failures", "open", "tenants", "services", "7 days", "a redrive works",
        "what", "next",
    )  # fmt: skip
    note = f"{frame.height:,} groups in all. A curve has 28 steps of 6 hours and its own height."
    return Section("Failure groups", columns, rows, note)


def _health(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            row["service"],
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
        "service", "score", "alert", "failures 24 h", "open", "succeeded", "failure rate",
        "oldest open",
    )  # fmt: skip
    note = (
        "Failure rate: dead letters of all finished events in 24 h, with its 95 % interval. The"
        " score is for display; alerts go by the burn rate of the objective."
    )
    return Section("Health per service", columns, rows, note)


def _rate(row: dict[str, Any]) -> str:
    if row["failure_rate_24h"] is None:
        return "unknown"
    shares = [row[f"failure_rate_24h{end}"] for end in ("", "_low", "_high")]
    digits = 3 if shares[0] < 0.001 else 2 if shares[0] < 0.01 else 1
    rate, low, high = (f"{share:.{digits}%}" for share in shares)
    return f"{rate} ({low} to {high})"


def _resolution(frame: pl.DataFrame, most_rows: int) -> Section:
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
    """The mean time open within 24 h; None where it was not watched so long, and some are open."""
    is_known = row["follow_up_seconds"] >= _DAY_SECONDS or not row["open_share"]
    return row["rmst_24h_seconds"] if is_known else None


def _redrives(frame: pl.DataFrame, most_rows: int) -> Section:
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


def _recent(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = _contributing(frame.filter(pl.col("subject") == "last 24 hours"), most_rows)
    columns = ("what", "failures", "share now", "share before", "ratio")
    note = (
        "At least twice as frequent in the last 24 hours as in the week before, surely more than"
        " by chance. Where to look first; that it is to blame this does not say."
    )
    return Section("More frequent than before", columns, tuple(row[1:] for row in rows), note)


def _by_group(frame: pl.DataFrame, groups: pl.DataFrame, most_rows: int) -> Section:
    told = frame.filter(
        pl.col("subject") != "last 24 hours",
        ~pl.col("attribute").is_in(_EVIDENT) & pl.col("other_attribute").is_null(),
    )
    errors = dict(groups.select("group_id", "error_class").iter_rows())
    rows = tuple(
        (row[0], errors.get(row[0]), *row[1:])
        for row in _contributing(told.sort("risk_ratio", descending=True), most_rows)
    )
    columns = ("group", "error type", "what", "failures", "share", "elsewhere", "ratio")
    note = "What a group has more of than the other failures of the week."
    return Section("What groups have more of", columns, rows, note)


def _contributing(frame: pl.DataFrame, most_rows: int) -> list[tuple[Any, ...]]:
    found = []
    for row in frame.head(most_rows).to_dicts():
        what = f"{row['attribute']} = {row['value']}"
        if row["other_attribute"]:
            what += f" and {row['other_attribute']} = {row['other_value']}"
        ratio = f"{row['risk_ratio']:.1f}×" if row["baseline_share"] else "only here"
        shares = (f"{row['share']:.0%}", f"{row['baseline_share']:.1%}")
        found.append((row["subject"], what, row["failure_count"], *shares, ratio))
    return found


def _hours(frame: pl.DataFrame, most_rows: int) -> Section:
    habits = frame.filter(
        pl.col("dimension") == "service",
        pl.col("p_value") < _CERTAIN,
        pl.col("failure_count") >= 10,
        pl.col("weeks_high") * 4 >= pl.col("week_count") * 3,
    )
    rows = tuple(
        (
            row["value"],
            f"{_DAYS[row['hour_of_week'] // 24]} {row['hour_of_week'] % 24:02}:00",
            round(row["failure_count"] / row["week_count"]),
            f"{row['failure_count'] / row['expected_count']:.1f}×",
            f"{row['weeks_high']} of {row['week_count']}",
        )
        for row in habits.head(most_rows).to_dicts()
    )
    note = (
        "Hours (UTC) in which a service has three times its mean hour or more, and that in three"
        " quarters of the weeks: a single outage is no habit."
        if frame.height
        else "The log is younger than four weeks: nothing can be said yet."
    )
    columns = ("service", "hour", "a week", "ratio", "weeks")
    return Section("Hours of the week", columns, rows, note)


def _together(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            f"{row['service_a']} and {row['service_b']}",
            row["together_count"],
            row["leader"],
            seconds_as_text(row["median_lag_seconds"]),
        )
        for row in frame.sort("together_count", descending=True).head(most_rows).to_dicts()
    )
    columns = ("services", "times", "first", "by")
    note = (
        "Services that began to fail within two minutes of each other, more often than by chance."
    )
    return Section("Services that fail together", columns, rows, note)


def _tenants(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            row["tenant_id"],
            row["group_id"],
            row["error_class"],
            row["failure_count"],
            row["open_count"],
            f"{row['share_of_group']:.0%}",
            f"{row['share_of_all']:.0%}",
        )
        for row in frame.head(most_rows).to_dicts()
    )
    columns = ("tenant", "group", "error type", "failures", "open", "of the group", "of all")
    note = "Tenants who make up half of a group or more, and far less of everything else."
    return Section("Poison tenants", columns, rows, note)


def _messages(frame: pl.DataFrame, most_rows: int) -> Section:
    def why(row: dict[str, Any]) -> str:
        if row["kind"] == "several_consumers":
            return f"failed in {row['consumer_count']:,} consumers"
        cured = f"{row['cured_count']:,} others of its group were cured"
        return f"redriven {row['redrive_count']:,} times in vain, {cured}"

    rows = tuple(
        (
            row["failure_id"],
            row["error_class"],
            row["tenant_id"],
            None if row["original_sequence"] is None else str(row["original_sequence"]),
            why(row),
        )
        for row in frame.head(most_rows).to_dicts()
    )
    columns = ("failure", "error type", "tenant", "event", "why")
    note = (
        "The message may be at fault rather than the service: look at it, then discard or mend it."
    )
    return Section("Poison messages", columns, rows, note)


def _consumers(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            row["group_id"],
            row["consumer_name"],
            row["consumer_versions"],
            row["error_class"],
            row["message_count"],
            row["tenant_count"],
            f"{row['first_failed_at']:%d %b %H:%M}",
        )
        for row in frame.head(most_rows).to_dicts()
    )
    columns = ("group", "consumer", "versions", "error type", "messages", "tenants", "since")
    note = (
        "The code may be at fault rather than the messages: many fail here, in this consumer alone,"
        " of whichever tenant, and waiting will not help. Of seven days; errors that tell of an"
        " event's content (validation, duplicates) are left out."
    )
    return Section("Poison consumers", columns, rows, note)


def _verified(frame: pl.DataFrame) -> Section:
    rows = tuple(
        (
            row["started_at"],
            row["files"],
            f"{row['read_bytes'] / 1e6:,.1f} MB",
            seconds_as_text(row["seconds"]),
            row["wrong_count"],
            row["repaired_count"],
        )
        for row in frame.to_dicts()
    )
    wrong = frame["wrong"].item(0).to_list()
    unchecked = frame["unchecked_files"].item(0)
    note = (
        " ".join(wrong[:_MOST_WRONG]) + " dlq verify --repair mends it."
        if wrong
        else "Stream, lake and Postgres were the same, and no page of the lake was damaged."
    )
    if unchecked:
        note += f" {unchecked:,} files of an older version have no checksums."
    columns = ("verified", "files", "read", "took", "wrong", "repaired")
    return Section("Verification", columns, rows, note)
