"""Incidents: a list of them, and one with its timeline."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from sahool_dlq.analysis.report.advice import what_failed
from sahool_dlq.analysis.report.incidents import Course, Incident, Step, names
from sahool_dlq.analysis.report.sections import printable_frames
from sahool_dlq.errors import QueryError, UnknownNameError
from sahool_dlq.jobs.marts import Frames, compute_marts
from sahool_dlq.jobs.pages import write_page
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect

__all__ = [
    "COURSE_MARTS",
    "chosen_incidents",
    "course_of",
    "find_incident",
    "incident_as_dict",
    "list_incidents",
    "write_incident_page",
]

COURSE_MARTS = ("incidents", "outbreaks", "failures_minutely", "failure_groups", "deploys")

_BEFORE = timedelta(hours=24)
"""A version that began to run so long before an incident may be its cause."""


def list_incidents(settings: Settings, now: datetime, service: str | None = None) -> pl.DataFrame:
    """The mart `incidents` as of `now`, the newest first; of one service, if given."""
    incidents = compute_marts(settings, ["incidents"], now)["incidents"]
    if service is None:
        return incidents
    return incidents.filter(pl.col("services").str.split(", ").list.contains(service))


def chosen_incidents(
    settings: Settings, now: datetime, service: str | None = None, *, is_open: bool = False
) -> list[dict[str, Any]]:
    """The rows of `list_incidents`; with `is_open` those that last or have open failures."""
    rows = list_incidents(settings, now, service).to_dicts()
    return [r for r in rows if not is_open or r["until_at"] is None or r["open_count"]]


def incident_as_dict(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the mart for JSON: its lists as lists."""
    return row | {name: names(row[name]) for name in ("services", "groups", "causes")}


def find_incident(settings: Settings, id_: str, now: datetime) -> Incident:
    """An incident by its id or unique first characters, with its groups and timeline.

    Raises UnknownNameError if there is none, QueryError if there are several.
    """
    marts = compute_marts(settings, COURSE_MARTS, now)
    found = marts["incidents"].filter(pl.col("incident_id").str.starts_with(id_.lower()))
    if found.is_empty():
        raise UnknownNameError(f"There is no incident {id_!r}: `dlq incidents` lists them.")
    if found.height > 1:
        several = ", ".join(found["incident_id"])
        raise QueryError(f"Several incidents begin with {id_!r}: {several}. Give more of the id.")
    row = found.row(0, named=True)
    outbreaks = marts["outbreaks"].filter(incident_id=row["incident_id"])
    by_id = {group["group_id"]: group for group in marts["failure_groups"].to_dicts()}
    groups = [by_id[group] for group in names(row["groups"])]
    said = [Step(*step) for step in _said(settings, outbreaks, now, _BY_KIND).iter_rows()]
    last = max((step.until or step.at for step in said), default=row["until_at"] or now)
    steps = [*_ends(row, outbreaks, by_id), *said, *_deploys(marts, row, last)]
    steps.sort(key=lambda step: step.at)
    return Incident(row, groups, steps, course_of(settings, marts, row["incident_id"], now))


def write_incident_page(incident: Incident, now: datetime, file: Path) -> None:
    """Write the page of an incident as of `now`; raises ReportError if that fails."""
    from sahool_dlq.analysis.report.page import incident_page  # its package loads for a second

    write_page(file, incident_page(incident, now))


def course_of(settings: Settings, marts: Frames, id_: str, now: datetime) -> Course:
    """The minutes of the incident with this id; `marts` has those of COURSE_MARTS."""
    row = marts["incidents"].row(by_predicate=pl.col("incident_id") == id_, named=True)
    outbreaks = marts["outbreaks"].filter(incident_id=id_)
    spans = outbreaks.select("group_id", "from_minute", "until_minute", "from_at")
    is_in = pl.col("minute_number").is_between("from_minute", "until_minute")
    failed = (
        marts["failures_minutely"]
        .join(spans, on="group_id")
        .group_by("minute_at", "service", "group_id", "failure_count", "first_opened_at")
        .agg(is_in.any().alias("is_in"), pl.col("from_at").filter(is_in).min())
        .group_by("minute_at", "service", "is_in")
        .agg(
            pl.col("failure_count").sum().alias("count"),
            pl.max_horizontal("first_opened_at", "from_at").min().alias("first_at"),
        )
        .with_columns(pl.lit("failed").alias("kind"))
    )
    done = _said(settings, outbreaks, now, _BY_MINUTE)
    minutes = pl.concat([failed, done], how="diagonal_relaxed")
    own = failed.filter("is_in")["service"].unique().to_list()
    minutes = minutes.filter(pl.col("service").is_in(own) | pl.col("service").is_null())
    return Course(row, minutes, marts["deploys"].filter(pl.col("service").is_in(own)))


def _ends(
    row: dict[str, Any], outbreaks: pl.DataFrame, groups: dict[str, dict[str, Any]]
) -> Iterator[Step]:
    """When each group began and ended, and the worst minute."""
    for outbreak in outbreaks.to_dicts():
        group = groups[outbreak["group_id"]]
        text = f"{group['group_id']}: {what_failed(group, 90)}"
        yield Step(outbreak["from_at"], None, "outbreak.began", None, group["services"], text)
        if outbreak["is_over"]:
            ended = datetime.fromtimestamp(60 * (outbreak["until_minute"] + 1), UTC)
            text = group["group_id"]
            yield Step(ended, None, "outbreak.ended", None, group["services"], text)
    yield Step(row["peak_at"], None, "peak", row["peak_count"], None, "failures in one minute")


def _deploys(marts: Frames, row: dict[str, Any], last: datetime) -> Iterator[Step]:
    """The versions of its services that began to run from a day before it to its last message."""
    services = names(row["services"])
    for deploy in marts["deploys"].to_dicts():
        at = deploy["first_seen_at"]
        if deploy["service"] in services and row["from_at"] - _BEFORE <= at <= last:
            told = [f"version {deploy['consumer_version']} runs"]
            told += [
                f"{name.replace('_', ' ')} {deploy[name]}"
                for name in ("brought", "cured", "brought_back")
                if deploy[name]
            ]
            yield Step(at, None, "deploy", None, deploy["service"], "; ".join(told))


def _said(settings: Settings, outbreaks: pl.DataFrame, now: datetime, sums: str) -> pl.DataFrame:
    """What was said of its failures until `now`: redrives, decisions, alerts; summed up."""
    with connect(Lake(settings.lake)) as lake:
        lake.register("outbreaks", outbreaks.to_arrow())
        rows = pl.DataFrame(lake.sql(_SAID + sums, params={"now": now}).to_arrow_table())
    return printable_frames({"": rows})[""]


_SAID = """
WITH failed AS (
    SELECT DISTINCT d.failure_id
    FROM dead_letters AS d
    INNER JOIN outbreaks AS o
        ON o.group_id = d.group_id
        AND floor(epoch(d.dlq_timestamp) / 60) BETWEEN o.from_minute AND o.until_minute
    WHERE d.root_failure_id IS NULL
),
said AS (
    SELECT e."at", e.kind, e.actor, coalesce(
        CASE WHEN e.kind LIKE 'redrive.%' THEN 'in version ' || e.consumer_version END,
        CASE WHEN e.kind LIKE 'triage.%' THEN e.reason END
    ) AS text
    FROM case_events AS e SEMI JOIN failed USING (failure_id)
    WHERE e.parse_error IS NULL AND e."at" <= $now
    UNION ALL
    SELECT d.dlq_timestamp, 'redrive.failed_again', NULL, 'in version ' || d.consumer_version
    FROM dead_letters AS d SEMI JOIN failed ON failed.failure_id = d.root_failure_id
    WHERE d.dlq_timestamp <= $now
)
"""
_BY_KIND = """
SELECT min("at"), max("at"), kind, count(*), actor,
    CASE WHEN count(DISTINCT text) > 3 THEN count(DISTINCT text) || ' different ones'
        ELSE string_agg(DISTINCT text, '; ' ORDER BY text) END
FROM said GROUP BY kind, actor ORDER BY 1, 3, 5
"""
_BY_MINUTE = """
SELECT date_trunc('minute', "at") AS minute_at, kind, count(*) AS count, min("at") AS first_at,
    true AS is_in
FROM said GROUP BY 1, 2 ORDER BY 1, 2
"""
