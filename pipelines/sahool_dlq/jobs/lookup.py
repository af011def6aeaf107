"""One failure or one group, with all that the lake knows about it: the output of `dlq show`."""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import polars as pl

from sahool_dlq.analysis.marts.views import create_views
from sahool_dlq.analysis.report.advice import by_urgency, next_command
from sahool_dlq.analysis.report.sections import printable_frames
from sahool_dlq.analysis.report.trend import Trend
from sahool_dlq.analysis.report.trends import group_trends
from sahool_dlq.errors import QueryError, UnknownNameError
from sahool_dlq.jobs.care import with_care
from sahool_dlq.jobs.case_history import case_history, group_history
from sahool_dlq.jobs.marts import compute_marts
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect

__all__ = [
    "Found",
    "chosen_groups",
    "failure_groups",
    "find_failure",
    "find_group",
    "group_as_dict",
    "look_up",
    "samples",
]

_GROUP = re.compile(r"[0-9a-f]{1,16}")
_SAID = (
    *("service", "consumer_name", "event_id", "event_type", "original_subject", "tenant_id"),
    *("error_type", "error_message", "original_data", "original_headers", "payload_encoding"),
)
"""Columns that are equal in all dead letters of the same failure."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an id stands for: a group with its latest failure, or a failure."""

    failure: dict[str, Any]
    history: list[tuple[Any, ...]]
    group: dict[str, Any] | None = None
    trend: Trend | None = None
    group_history: list[tuple[Any, ...]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {"failure": self.failure, "history": self.history}
        if self.group is None:
            return told
        group = group_as_dict(self.group, self.trend)
        return {"group": group, "group_history": self.group_history} | told


def look_up(settings: Settings, id_: str, now: datetime) -> Found:
    """The group, else the failure, with this id or these first digits.

    Raises UnknownNameError if there is none, QueryError if there are several.
    """
    group, trend = find_group(settings, id_, now) or (None, None)
    failure = find_failure(settings, group["sample_failure_id"] if group else id_)
    history = case_history(settings, failure["failure_id"])
    said = group_history(settings, group["group_id"]) if group else []
    return Found(failure, history, group, trend, said)


def chosen_groups(
    settings: Settings,
    now: datetime,
    *,
    state: str | None = None,
    service: str | None = None,
    owner: str | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Trend]]:
    """Groups as of `now`, the most urgent first, and trends by group; conditions leave some out."""
    frame, trends = failure_groups(settings, now)
    groups = [
        row
        for row in by_urgency(frame).to_dicts()
        if (state is None or row["state"] == state)
        and (service is None or service in (row["services"] or "").split(", "))
        and (owner is None or owner == row["owner"])
    ]
    return groups, trends


def group_as_dict(group: Mapping[str, Any], trend: Trend | None) -> dict[str, Any]:
    """A group with what a terminal shows besides: trend and next command."""
    counts = list(trend.counts) if trend else []
    return {**group, "trend": counts, "next": next_command(group)}


def failure_groups(settings: Settings, now: datetime) -> tuple[pl.DataFrame, dict[str, Trend]]:
    """The mart of that name as of `now`, and the trends of its groups.

    With who owns each group now, see `with_care`.
    """
    frames = compute_marts(settings, ["failure_groups", "failures_minutely"], now)
    groups = with_care(settings, frames["failure_groups"])
    return groups, group_trends(frames["failures_minutely"], now)


def find_group(
    settings: Settings, id_: str, now: datetime
) -> tuple[dict[str, Any], Trend | None] | None:
    """A group and its trend, by its id or unique first digits.

    None if there is no such group. Raises QueryError if there are several.
    """
    prefix = id_.lower()
    if not _GROUP.fullmatch(prefix):
        return None
    with connect(Lake(settings.lake)) as lake:
        found = lake.execute(
            "SELECT DISTINCT group_id FROM dead_letters WHERE starts_with(group_id, $prefix)"
            " LIMIT 4",
            {"prefix": prefix},
        ).fetchall()
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(name for (name,) in found)
        raise QueryError(f"Several groups begin with {id_!r}: {names}. Give more of the id.")
    groups, trends = failure_groups(settings, now)
    for row in groups.filter(pl.col("group_id") == found[0][0]).to_dicts():
        return row, trends.get(row["group_id"])
    return None


def find_failure(settings: Settings, prefix: str) -> dict[str, Any]:
    """A dead letter, by the first digits of its failure's id, as `dead_letters`, with its state.

    The state is status, opening, redrive_count, closed_at and cause, as in `cases`; how its
    previous opening was closed (last_closed_at, last_closed_as); and the addressed consumer of its
    latest redrive (handed_to). A later row of a redrive chain has the status superseded. For a
    reopened case it is the latest dead letter. Raises QueryError if none, or more than one,
    matches.
    """
    with connect(Lake(settings.lake)) as lake:
        found = lake.execute(
            "SELECT DISTINCT failure_id FROM dead_letters"
            " WHERE starts_with(failure_id, lower($prefix)) LIMIT 2",
            {"prefix": prefix},
        ).fetchall()
        if not found:
            raise UnknownNameError(
                f"No failure or group has the id {prefix!r}: `dlq groups` lists groups, and `dlq "
                "drain` reads new ones."
            )
        if len(found) > 1:
            raise QueryError(f"Several failures begin with {prefix!r}: give more of the id.")
        return _as_it_stands(lake, found[0][0])


def _as_it_stands(lake: duckdb.DuckDBPyConnection, failure_id: str) -> dict[str, Any]:
    """The failure's row and its case, computed only from the lake's rows of its chain."""
    chain = [failure_id]
    while root := lake.execute(
        "SELECT root_failure_id FROM dead_letters WHERE failure_id = $id"
        " AND root_failure_id IS NOT NULL AND NOT list_contains($chain, root_failure_id) LIMIT 1",
        {"id": chain[-1], "chain": chain},
    ).fetchone():
        chain.append(root[0])
    about = {"chain": chain}
    letters = lake.sql(
        "SELECT * FROM dead_letters WHERE list_contains($chain, failure_id)"
        " OR list_contains($chain, root_failure_id)",
        params=about,
    ).to_arrow_table()
    events = lake.sql(
        "SELECT * FROM case_events WHERE list_contains($chain, failure_id)", params=about
    ).to_arrow_table()
    totals = lake.sql("FROM service_totals LIMIT 0").to_arrow_table()
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as small:
        small.execute("SET TimeZone = 'UTC'")
        tables = {"dead_letters": letters, "case_events": events, "service_totals": totals}
        for name, table in tables.items():
            small.register(name, table)
        create_views(small)
        rows = small.sql(
            "SELECT d.*, coalesce(c.status, 'superseded') AS status, c.redrive_count, c.closed_at,"
            " c.cause, f.opening, l.closed_at AS last_closed_at, l.cause AS last_closed_as,"
            " (SELECT nullif(arg_max(e.handed_to, e.log_position), '') FROM case_log AS e"
            "   WHERE e.failure_id = d.failure_id) AS handed_to"
            " FROM dead_letters AS d"
            " INNER JOIN openings AS f ON f.epoch = d.epoch AND f.dlq_sequence = d.dlq_sequence"
            " LEFT JOIN cases AS c ON c.failure_id = d.failure_id AND c.opening = f.opening"
            " LEFT JOIN cases AS l ON l.failure_id = d.failure_id AND l.opening = f.opening - 1"
            " WHERE d.failure_id = $id ORDER BY f.opening DESC LIMIT 1",
            params={"id": failure_id},
        ).to_arrow_table()
        others = small.sql(
            "SELECT d.epoch, d.dlq_sequence, d.published_at, d.service, d.error_type,"  # noqa: S608  (our own names, bound values)
            " d.error_message, d.original_subject FROM dead_letters AS d WHERE d.failure_id = $id"
            " AND NOT EXISTS (FROM openings AS f INNER JOIN dead_letters AS o"
            " ON o.epoch = f.epoch AND o.dlq_sequence = f.dlq_sequence WHERE o.failure_id = $id"
            f" AND {' AND '.join(f'o.{n} IS NOT DISTINCT FROM d.{n}' for n in _SAID)})"
            " ORDER BY d.published_at, d.dlq_sequence",
            params={"id": failure_id},
        ).to_arrow_table()
    row: dict[str, Any] = pl.DataFrame(rows).row(0, named=True)
    return row | {"also_said": pl.DataFrame(others).to_dicts()}


def samples(settings: Settings, failure_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The content of some failures, by id, for a page; texts are printable and cut."""
    with connect(Lake(settings.lake)) as lake:
        rows = lake.sql(
            'SELECT failure_id AS failure, dlq_timestamp AS "gave up", service,'
            " original_subject AS subject, tenant_id AS tenant, error_message AS message"
            " FROM dead_letters"
            " WHERE failure_id IN (SELECT unnest($ids))"
            " QUALIFY row_number() OVER (PARTITION BY failure_id ORDER BY dlq_timestamp DESC) = 1",
            params={"ids": list(failure_ids)},
        ).to_arrow_table()
    frame = printable_frames({"": pl.DataFrame(rows)})[""]
    return {row["failure"]: row for row in frame.to_dicts()}
