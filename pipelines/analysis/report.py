"""What a person wants to know, as sections of rows: for the terminal, Markdown and JSON."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

NEEDED_MARTS = ("failure_groups", "service_health", "resolution_times", "redrive_outcomes")


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""


def sections(marts: Mapping[str, pl.DataFrame], most_rows: int = 12) -> list[Section]:
    """Groups, health, resolution times and redrive outcomes, the worst first."""
    return [
        _groups(marts["failure_groups"], most_rows),
        _health(marts["service_health"], most_rows),
        _resolution(marts["resolution_times"], most_rows),
        _redrives(marts["redrive_outcomes"], most_rows),
    ]


def as_markdown(parts: list[Section], now: datetime) -> str:
    """The sections as a page in Markdown."""
    lines = [f"# Dead letters, {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        if part.rows:
            lines += [
                _row(part.columns),
                _row(["---"] * len(part.columns)),
                *(_row([_cell(value) for value in row]) for row in part.rows),
            ]
        else:
            lines.append("Nothing.")
        lines += ["", *([part.note, ""] if part.note else [])]
    return "\n".join(lines)


def as_json(parts: list[Section]) -> dict[str, list[dict[str, Any]]]:
    """The sections as lists of objects, by title."""
    return {
        part.title: [dict(zip(part.columns, row, strict=True)) for row in part.rows]
        for part in parts
    }


def seconds_as_text(seconds: float | None, absent: str = "–") -> str:
    """A duration as people say it."""
    if seconds is None:
        return absent
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _groups(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            row["group_id"],
            row["state"],
            row["failure_count"],
            row["open_count"],
            row["tenant_count"],
            row["services"],
            f"{row['error_class']}: {row['template']}".removesuffix(": ")[:90],
        )
        for row in frame.sort("failure_count", descending=True).head(most_rows).to_dicts()
    )
    columns = ("group", "state", "failures", "open", "tenants", "services", "what")
    return Section("Failure groups", columns, rows, f"{frame.height} groups in all.")


def _health(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            row["service"],
            row["failure_count_24h"],
            row["open_count"],
            row["succeeded_count_24h"] if row["has_totals"] else None,
            _rate(row),
            seconds_as_text(row["oldest_open_age_seconds"]),
        )
        for row in frame.head(most_rows).to_dicts()
    )
    columns = ("service", "failures 24 h", "open", "succeeded", "failure rate", "oldest open")
    note = "Failure rate: dead letters of all finished events in 24 h, with its 95 % interval."
    return Section("Health per service", columns, rows, note)


def _rate(row: dict[str, Any]) -> str:
    if row["failure_rate_24h"] is None:
        return "unknown"
    low, high = row["failure_rate_24h_low"], row["failure_rate_24h_high"]
    return f"{row['failure_rate_24h']:.1%} ({low:.1%} to {high:.1%})"


def _resolution(frame: pl.DataFrame, most_rows: int) -> Section:
    chosen = frame.filter(pl.col("dimension").is_in(["error_class", "overall"]))
    chosen = chosen.sort(pl.col("dimension") == "overall", pl.col("n"), descending=True)
    rows = tuple(
        (
            row["value"],
            row["n"],
            row["events"],
            f"{row['open_share']:.0%}",
            seconds_as_text(row["median_seconds"])
            if row["median_seconds"] is not None
            else "not reached",
            seconds_as_text(row["p90_seconds"])
            if row["p90_seconds"] is not None
            else "not reached",
        )
        for row in chosen.head(most_rows).to_dicts()
    )
    columns = ("error type", "cases", "closed", "still open", "median", "90 %")
    note = "Kaplan-Meier: cases that are still open count as not yet resolved."
    return Section("Time to resolution", columns, rows, note)


def _redrives(frame: pl.DataFrame, most_rows: int) -> Section:
    rows = tuple(
        (
            row["group_id"],
            row["error_class"],
            row["attempt_count"],
            row["succeeded_count"],
            row["failed_again_count"],
            row["outcome_unknown_count"] + row["waiting_count"],
            row["unroutable_count"] + row["refused_count"] + row["expired_count"],
        )
        for row in frame.head(most_rows).to_dicts()
    )
    columns = ("group", "error type", "redrives", "succeeded", "failed", "unknown", "impossible")
    note = "Impossible: no stream takes the subject, not allowed, or the bytes are gone."
    return Section("Redrive outcomes", columns, rows, note)


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    # Values come from messages: nothing of them may act as Markdown or HTML.
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", " ".join(str(value).split()))
