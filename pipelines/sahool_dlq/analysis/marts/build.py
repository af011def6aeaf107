"""The marts: small tables that explain the failures.

Each is one SELECT of `sql/marts`, run by DuckDB; parts that SQL cannot express well are done in
Polars (`resolution`, `contributors`, `significance`). There are three layers: the facts (`cases`,
`redrives`) on the lake's tables, the tables by day on the facts, and the rest on both.
"""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import duckdb
import polars as pl
import pyarrow as pa

from sahool_dlq.analysis.marts import resolution, significance
from sahool_dlq.analysis.marts.contributors import contributors
from sahool_dlq.analysis.marts.fixes import fixes
from sahool_dlq.analysis.marts.outbreaks import with_incidents
from sahool_dlq.analysis.marts.views import create_views, view_sql
from sahool_dlq.errors import QueryError
from sahool_dlq.sqlfiles import read_sql

__all__ = [
    "DAILY",
    "FACTS",
    "IN_POLARS",
    "MARTS",
    "SUMMARIES",
    "build_marts",
    "build_summaries",
    "facts",
    "parameters",
    "plain",
    "wanted_marts",
    "with_sources",
]

DAILY = (
    "failures_minutely",
    "cases_daily",
    "statuses_daily",
    "tenants_daily",
    "durations_daily",
    "redrives_daily",
    "redriven_in_vain_daily",
    "versions_daily",
    "fixes_daily",
)
"""The marts by day (`dlq_date`): they count the facts, and the later ones are sums of them."""

SUMMARIES = (
    "spikes",
    "failures_hourly",
    "failures_by_type",
    "fixes",
    "failure_groups",
    "outbreaks",
    "incidents",
    "pending_transient",
    "redrive_outcomes",
    "resolution_times",
    "resolution_curves",
    "deploys",
    "service_traffic_hourly",
    "service_health",
    "hour_of_week",
    "co_failures",
    "contributors",
    "poison_tenants",
    "poison_messages",
    "poison_consumers",
    "metrics",
)
"""The current marts, each after those that it reads."""

MARTS = (*DAILY, *SUMMARIES)

# Read by most marts and expensive to compute: temporary tables while the marts are built.
FACTS = ("epochs", "case_log", "openings", "cases", "redrives")

Query = Callable[[str], pl.DataFrame]


def build_marts(
    connection: duckdb.DuckDBPyConnection,
    now: datetime,
    names: Sequence[str] | None = None,
    *,
    slo: float = 0.999,
) -> dict[str, pa.Table]:
    """Compute the marts `names`, or all, as of `now` (aware): Arrow tables by name.

    It leaves the views on the connection. Times in the result are UTC, in any time zone of the
    connection. Raises QueryError with the name of the mart or view that failed.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    wanted = wanted_marts(names)
    create_views(connection)
    with facts(connection), _parameters(connection, now, slo):
        return _built(connection, now, wanted, with_sources(wanted))


def build_summaries(
    connection: duckdb.DuckDBPyConnection,
    now: datetime,
    names: Sequence[str] = SUMMARIES,
    *,
    slo: float = 0.999,
) -> dict[str, pa.Table]:
    """The marts `names`, as by `build_marts`, if those by day already exist.

    The connection has these as relations with their names, and has the views.
    """
    wanted = wanted_marts(names)
    summaries = [name for name in wanted if name not in DAILY]
    with _parameters(connection, now, slo):
        needed = [name for name in with_sources(summaries) if name not in DAILY]
        built = _built(connection, now, summaries, needed)
    by_day = {
        name: plain(connection.sql(f"FROM {name}").to_arrow_table())
        for name in DAILY
        if name in wanted
    }
    return {name: {**by_day, **built}[name] for name in wanted}


def wanted_marts(names: Sequence[str] | None) -> tuple[str, ...]:
    """These marts, each once, or all; raises QueryError if there is no such mart."""
    wanted = MARTS if names is None else tuple(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in MARTS]:
        raise QueryError(f"There is no mart {unknown[0]}; there are {', '.join(MARTS)}.")
    return wanted


def _built(
    connection: duckdb.DuckDBPyConnection,
    now: datetime,
    wanted: Sequence[str],
    needed: Sequence[str],
) -> dict[str, pa.Table]:
    """The wanted marts; the `needed` ones, in order, are temporary tables meanwhile."""
    tables = {}
    try:
        for name in needed:
            try:
                table = _build(connection, now, name)
                connection.register("built", table)
                connection.execute(f"CREATE TEMP TABLE {name} AS FROM built")
                connection.unregister("built")
            except (duckdb.Error, pl.exceptions.PolarsError, pa.ArrowException) as error:
                raise QueryError(f"The mart {name} failed: {_first_line(error)}") from error
            if name in wanted:
                tables[name] = table
    finally:
        for name in needed:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
    return {name: tables[name] for name in wanted}


def _build(connection: duckdb.DuckDBPyConnection, now: datetime, name: str) -> pa.Table:
    def query(sql: str) -> pl.DataFrame:
        return pl.DataFrame(plain(connection.sql(sql).to_arrow_table()))

    if name in IN_POLARS:
        frame = IN_POLARS[name](query, now)
        return plain(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    return plain(connection.sql(read_sql(f"marts/{name}.sql")).to_arrow_table())


def _uneven_hours(query: Query, _: datetime) -> pl.DataFrame:
    cells = query(read_sql("marts/hour_of_week.sql"))
    series = cells.select("dimension", "value", "chi_square").unique(["dimension", "value"])
    tails = significance.chi_square_tail(series["chi_square"], 167)
    known = series.drop("chi_square").with_columns(p_value=tails)
    return cells.join(known, on=["dimension", "value"], how="left", maintain_order="left")


def _significant_pairs(query: Query, _: datetime) -> pl.DataFrame:
    pairs = query(read_sql("marts/co_failures.sql"))
    together, a, b, slots = (
        pairs[name] for name in ("together_count", "outbreaks_a", "outbreaks_b", "slot_count")
    )
    tails = significance.fisher_tail(together, a, b, slots)
    return pairs.with_columns(
        lift=together * slots / (a * b),
        p_value=tails,
        adjusted_p=significance.adjusted(tails),
    ).filter(pl.col("together_count") >= 3, pl.col("adjusted_p") < 0.01)


def _outbreaks(query: Query, _: datetime) -> pl.DataFrame:
    return with_incidents(query(read_sql("marts/outbreaks.sql")))


IN_POLARS: dict[str, Callable[[Query, datetime], pl.DataFrame]] = {
    "resolution_times": lambda query, now: resolution.resolution_times(
        query(resolution.DURATIONS_SQL), now
    ),
    "resolution_curves": lambda query, now: resolution.resolution_curves(
        query(resolution.DURATIONS_SQL), now
    ),
    "contributors": lambda query, _: contributors(query),
    "fixes": lambda query, _: fixes(query),
    "outbreaks": _outbreaks,
    "hour_of_week": _uneven_hours,
    "co_failures": _significant_pairs,
}

_SOURCES = {
    "resolution_times": ["durations_daily"],
    "resolution_curves": ["durations_daily"],
    "contributors": [],
    "fixes": ["fixes_daily", "versions_daily"],
}


def with_sources(names: Sequence[str]) -> list[str]:
    """These marts and the marts that they read, in the order of MARTS."""
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += _SOURCES.get(name) or _read_by(name)
    return [name for name in MARTS if name in needed]


def _read_by(name: str) -> list[str]:
    if name in _SOURCES:
        return []
    words = set(re.findall(r"(?:FROM|JOIN) (\w+)", read_sql(f"marts/{name}.sql")))
    return [mart for mart in MARTS if mart in words]


@contextmanager
def facts(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Replace the views that most marts read with temporary tables of the same names."""
    try:
        for name in FACTS:
            try:
                connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS\n{view_sql(name)}")
            except duckdb.InterruptException:
                raise  # whose time it was says so
            except duckdb.Error as error:
                raise QueryError(f"The view {name} failed: {_first_line(error)}") from error
        yield
    finally:
        for name in FACTS:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")


def parameters(now: datetime, slo: float) -> dict[str, str]:
    """The parameters of the marts, as rows of VALUES by relation: time, objective, spike rule."""

    def limits(rule: significance.SpikeRule) -> str:
        rows = significance.spike_limits(rule)
        return ", ".join(f"({count}, {limit!r})" for count, limit in rows)

    minute = int(now.timestamp() // 60)
    hours = ", ".join(f"({hour})" for hour in range(168))
    return {
        "clock (now, minute_number)": f"(CAST('{now.isoformat()}' AS TIMESTAMPTZ), {minute})",
        "health_rules (allowed_failure_rate)": f"(CAST({1 - slo!r} AS DOUBLE))",
        "spike_limits (failure_count, expected_limit)": limits(significance.SPIKE),
        "outbreak_limits (failure_count, expected_limit)": limits(significance.OUTBREAK),
        "week_hours (hour_of_week)": hours,
    }


@contextmanager
def _parameters(connection: duckdb.DuckDBPyConnection, now: datetime, slo: float) -> Iterator[None]:
    relations = parameters(now, slo)
    try:
        for relation, rows in relations.items():
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {relation} AS VALUES {rows}")  # noqa: S608  (our own names, bound values)
        yield
    finally:
        for relation in relations:
            connection.execute(f"DROP VIEW IF EXISTS temp.{relation.split()[0]}")


def plain(table: pa.Table) -> pa.Table:
    """The table with times in UTC and plain strings.

    DuckDB labels times with the session's zone, Polars has long strings.
    """

    def plain(field: pa.Field[pa.DataType]) -> pa.Field[pa.DataType]:
        if pa.types.is_timestamp(field.type) and field.type.tz:
            return field.with_type(pa.timestamp("us", tz="UTC"))
        return field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field

    return table.cast(pa.schema([plain(field) for field in table.schema]))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
