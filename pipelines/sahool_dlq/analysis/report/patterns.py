"""Common values of failures, as sections of rows: where to look first (pure)."""

from typing import Any

import polars as pl

from sahool_dlq.analysis.report.section import Section, seconds_as_text

__all__ = [
    "distinctive",
    "failing_together",
    "hours_of_week",
    "more_frequent",
    "poison_consumers",
    "poison_messages",
    "poison_tenants",
]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_CERTAIN = 1e-4  # maximum probability of such an uneven week by chance
_EVIDENT = ("service", "event_type")  # a group is its service's anyway


def more_frequent(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = _contributing(frame.filter(pl.col("subject") == "last 24 hours"), most_rows)
    columns = ("what", "failures", "share now", "share before", "ratio")
    note = (
        "At least twice as frequent in the last 24 hours as in the week before, surely more than"
        " by chance. Where to look first; that it is to blame this does not say."
    )
    return Section("More frequent than before", columns, tuple(row[1:] for row in rows), note)


def distinctive(frame: pl.DataFrame, groups: pl.DataFrame, most_rows: int) -> Section:
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


def hours_of_week(frame: pl.DataFrame, most_rows: int) -> Section:
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


def failing_together(frame: pl.DataFrame, most_rows: int) -> Section:
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


def poison_tenants(frame: pl.DataFrame, most_rows: int) -> Section:
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


def poison_messages(frame: pl.DataFrame, most_rows: int) -> Section:
    def why(row: dict[str, Any]) -> str:
        if row["kind"] == "several_consumers":
            return f"failed in {row['consumer_count']:,} consumers"
        cured = f"{row['cured_count']:,} others cured"
        return f"{row['redrive_count']:,} redrives in vain; {cured}"

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


def poison_consumers(frame: pl.DataFrame, most_rows: int) -> Section:
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
