"""Incidents in words, as a section of the report, and as the draft of a post-mortem (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from sahool_dlq.analysis.report.advice import state_in_words, what_failed
from sahool_dlq.analysis.report.section import (
    Section,
    as_markdown_table,
    escaped,
    seconds_as_text,
)

__all__ = [
    "Course",
    "Incident",
    "Step",
    "duration",
    "figures",
    "groups",
    "in_words",
    "names",
    "post_mortem",
    "section",
    "services_in_words",
    "shown",
    "timeline",
]


_MOST_SHOWN = 6
_RECENT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an incident's timeline."""

    at: datetime
    until: datetime | None  # last one, if there were several
    kind: str  # outbreak.began, outbreak.ended, peak, deploy, or the kind of messages of the log
    count: int | None  # messages
    by: str | None  # service, person or flow
    text: str | None  # details


@dataclass(frozen=True, slots=True)
class Course:
    """An incident in minutes, for its chart."""

    row: Mapping[str, Any]  # of `incidents`
    minutes: pl.DataFrame  # minute_at, kind, service, count, first_at, is_in: see charts.incident
    deploys: pl.DataFrame  # the mart, of its services


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident with its groups and its timeline."""

    row: Mapping[str, Any]  # of `incidents`
    groups: Sequence[Mapping[str, Any]]  # of `failure_groups`, in the order in which they joined
    steps: Sequence[Step]  # in order of time
    course: Course

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the row's lists as lists, without the chart's minutes."""
        lists = {name: names(self.row[name]) for name in ("services", "groups", "causes")}
        return {"incident": {**self.row, **lists}, "groups": self.groups, "timeline": self.steps}


def names(text: str | None) -> list[str]:
    """The names in a column that joins them."""
    return text.split(", ") if text else []


def duration(incident: Mapping[str, Any], now: datetime) -> str:
    """How long it lasted, or has lasted."""
    seconds = ((incident["until_at"] or now) - incident["from_at"]).total_seconds()
    return seconds_as_text(max(seconds, 0))


def services_in_words(incident: Mapping[str, Any]) -> str:
    """The services in the order in which they joined: `weather, then irrigation, ndvi`."""
    first, *rest = names(incident["services"])
    return f"{first}, then {', '.join(rest)}" if rest else first


def in_words(incident: Mapping[str, Any]) -> str:
    """An incident in one sentence."""
    until = incident["until_at"]
    when = f"from {_at(incident['from_at'])}"
    when += f" to {_at(until)}" if until else ", and lasts"
    groups = _some(incident["group_count"], "group")
    return (
        f"{services_in_words(incident)}: {_some(incident['failure_count'], 'failure')} in {groups},"
        f" {when}; {incident['open_count']:,} are open"
    )


def shown(incidents: pl.DataFrame, now: datetime) -> str | None:
    """The id of the incident that a chart shows: one that lasts; else the most costly one of seven
    days, else the newest; None if there is none.
    """
    is_recent = pl.col("from_at") > now - _RECENT
    ranked = incidents.sort(
        pl.col("until_at").is_null(),
        is_recent,
        pl.when(is_recent).then("delay_seconds"),
        "from_at",
        descending=True,
        nulls_last=True,
    )
    return None if ranked.is_empty() else str(ranked["incident_id"][0])


def section(incidents: pl.DataFrame, now: datetime, most_rows: int) -> Section:
    """The newest incidents."""
    rows = tuple(
        (
            row["incident_id"],
            services_in_words(row),
            duration(row, now) if row["until_at"] else "it lasts",
            row["failure_count"],
            row["open_count"],
            seconds_as_text(row["delay_seconds"]),
        )
        for row in incidents.head(min(most_rows, _MOST_SHOWN)).to_dicts()
    )
    columns = ("incident", "services", "lasted", "failures", "open", "delay")
    note = (
        f"{incidents.height:,} in 13 weeks. An id begins with day and hour. Services in the order"
        " in which they joined; delay: the time from each failure to its end, or to now, summed up."
        " All: dlq incidents. One: dlq incident ID"
    )
    return Section("Incidents", columns, rows, note if rows else "")


def figures(incident: Incident, now: datetime) -> Section:
    """What it was, in numbers, for the strip of its page."""
    row = incident.row
    is_over = row["until_at"] is not None
    rows = (
        ("lasted", duration(row, now), "it is over" if is_over else "until now, and it lasts"),
        ("failures", row["failure_count"], f"at most {row['peak_count']:,} in a minute"),
        ("services", row["service_count"], _some(row["group_count"], "group")),
        ("tenants", row["tenant_count"], "that had a failure"),
        ("open", row["open_count"], f"{row['cured_count']:,} cured by a redrive"),
        ("delay", seconds_as_text(row["delay_seconds"]), "of all its events together"),
    )
    return Section("Now", ("what", "value", "of which"), rows)


def post_mortem(incident: Incident, now: datetime) -> str:
    """A draft in Markdown: what is known, and the questions that people answer."""
    row = incident.row
    facts = Section(
        "Impact",
        ("", row["incident_id"]),
        (
            ("from", row["from_at"]),
            ("to", row["until_at"] or "it lasts"),
            ("lasted", duration(row, now)),
            ("services", services_in_words(row)),
            ("failures", row["failure_count"]),
            ("most in a minute", row["peak_count"]),
            ("tenants", row["tenant_count"]),
            ("cured by redrive", row["cured_count"]),
            ("open", row["open_count"]),
            ("delay of all events", seconds_as_text(row["delay_seconds"])),
        ),
    )
    lines = [f"# Post-mortem: {escaped(services_in_words(row))}, {_at(row['from_at'])}", ""]
    lines += [f"Draft of {_at(now)}. {escaped(in_words(row))}.", ""]
    for part in (facts, timeline(incident), groups(incident)):
        lines += [f"## {part.title}", "", *as_markdown_table(part), ""]
    for title, question in _QUESTIONS:
        lines += [f"## {title}", "", f"*{question}*", ""]
    return "\n".join(lines)


def timeline(incident: Incident) -> Section:
    """Its steps."""
    columns = ("at", "until", "what", "count", "by", "details")
    rows = tuple((s.at, s.until, s.kind, s.count, s.by, s.text) for s in incident.steps)
    return Section("Timeline", columns, rows)


def groups(incident: Incident) -> Section:
    """Its groups, in the order in which they joined."""
    rows = tuple((g["group_id"], state_in_words(g), what_failed(g)) for g in incident.groups)
    return Section("What failed", ("group", "state", "what"), rows)


_QUESTIONS = (
    ("Cause", "What failed first, and why? Why did the others fail with it?"),
    ("Detection", "Who noticed it, how, and how long after it began?"),
    ("Repair", "What ended it? What was tried before?"),
    ("Actions", "What will be done so that it does not come again, by whom, until when?"),
)


def _at(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
