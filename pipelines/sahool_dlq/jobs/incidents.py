"""Incidents: a list of them, and one with its timeline."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from sahool_dlq.analysis.report.advice import what_failed
from sahool_dlq.analysis.report.incidents import Incident, Step, names
from sahool_dlq.analysis.report.sections import printable_frames
from sahool_dlq.errors import QueryError, UnknownNameError
from sahool_dlq.jobs.marts import Frames, compute_marts
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect

__all__ = ["chosen_incidents", "find_incident", "incident_as_dict", "list_incidents"]

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
    wanted = ["incidents", "outbreaks", "failure_groups", "deploys"]
    marts = compute_marts(settings, wanted, now)
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
    said = _said(settings, outbreaks, now)
    last = max((step.until or step.at for step in said), default=row["until_at"] or now)
    steps = [*_course(row, outbreaks, by_id), *said, *_deploys(marts, row, last)]
    return Incident(row, groups, sorted(steps, key=lambda step: step.at))


def _course(
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


def _said(settings: Settings, outbreaks: pl.DataFrame, now: datetime) -> Sequence[Step]:
    """What was said of its failures until `now`: redrives, decisions, alerts; equal ones as one."""
    with connect(Lake(settings.lake)) as lake:
        lake.register("outbreaks", outbreaks.to_arrow())
        rows = pl.DataFrame(lake.sql(_SAID, params={"now": now}).to_arrow_table())
    return [Step(*row) for row in printable_frames({"": rows})[""].iter_rows()]


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
SELECT min("at"), max("at"), kind, count(*), actor,
    CASE WHEN count(DISTINCT text) > 3 THEN count(DISTINCT text) || ' different ones'
        ELSE string_agg(DISTINCT text, '; ' ORDER BY text) END
FROM said GROUP BY kind, actor ORDER BY 1, 3, 5
"""
