"""The marts: built, computed temporarily, or read from the last build."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from sahool_dlq.analysis.marts.build import build_summaries
from sahool_dlq.analysis.marts.incremental_build import daily_marts, update_marts, write_marts
from sahool_dlq.analysis.marts.spark import build_marts_on_spark
from sahool_dlq.analysis.report.sections import printable_frames
from sahool_dlq.analysis.report.unknowns import LOG_SQL
from sahool_dlq.connections import open_lock, open_postgres
from sahool_dlq.jobs.lake_views import write_views
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import (
    connect,
)
from sahool_dlq.stores.platform import check_owner
from sahool_dlq.stores.postgres.marts import fill_marts

Frames = dict[str, pl.DataFrame]
"""Marts by name."""


@dataclass(frozen=True, slots=True)
class MartsReport:
    """The built marts."""

    is_rebuilt: bool  # from all of the log, not from what came since the last run
    rows: dict[str, int]  # rows by mart
    seconds: float


def build_all_marts(
    settings: Settings, engine: str = "duckdb", *, is_rebuild: bool = False
) -> MartsReport:
    """Update the marts of the lake, and the summaries also in PostgreSQL.

    `engine` is `duckdb`, which counts what is new since the last run, or everything with
    `is_rebuild`; or `spark`, which needs the extra with that name and always computes everything.
    """
    started = time.monotonic()
    lake, now = Lake(settings.lake), datetime.now(UTC)
    with open_postgres(settings) as postgres, open_lock(settings, "marts", is_shared=True) as lock:
        check_owner(postgres, lake)
        # Rows read before an erasure must not be written after it.
        lock.wait("The building of marts")
        if engine == "spark":
            built = write_marts(lake, build_marts_on_spark(lake, now))
        else:
            built = update_marts(lake, now, is_rebuild=is_rebuild)
        lock.check()
        fill_marts(postgres, built.summaries)
    write_views(settings)
    return MartsReport(built.is_rebuilt, built.rows, round(time.monotonic() - started, 3))


def compute_marts(settings: Settings, names: Sequence[str], now: datetime) -> Frames:
    """Some marts as of `now`, from the lake, without writing; texts are printable.

    In addition `log`, one row about the log's data in the lake.
    """
    lake = Lake(settings.lake)
    with connect(lake) as connection, daily_marts(connection, lake, is_written=False):
        tables = build_summaries(connection, now, names)
        tables["log"] = connection.sql(LOG_SQL).to_arrow_table()
    return printable_frames({name: pl.DataFrame(table) for name, table in tables.items()})


def stored_marts(settings: Settings, names: Sequence[str]) -> Frames:
    """Some marts from the last build; `log` and the texts as in `compute_marts`."""
    lake = Lake(settings.lake)
    frames = {name: lake.read(f"marts/{name}") for name in names}
    with connect(lake) as connection:
        frames["log"] = pl.DataFrame(connection.sql(LOG_SQL).to_arrow_table())
    return printable_frames(frames)


def escalating_groups(settings: Settings) -> set[str]:
    """Ids of the groups that escalated at the last build of the marts."""
    lake = Lake(settings.lake)
    if lake.version("marts/failure_groups") is None:
        return set()
    groups = lake.read("marts/failure_groups")
    return set(groups.filter("is_escalating")["group_id"])
