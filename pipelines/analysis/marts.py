"""The marts: small tables that explain the failures, built anew from the lake each time.

A connection shows the base tables (`dead_letters`, `case_events`, `service_totals`); on them stand
the views of `sql/views`, on these the marts, one SELECT each in `sql/marts`, and what Polars says
better (`resolution`).
"""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import duckdb
import polars as pl
import pyarrow as pa

from pipelines.analysis import resolution
from pipelines.deadletter.error_families import CRITICAL, TRANSIENT, with_subclasses
from pipelines.errors import QueryError
from pipelines.sqlfiles import read_sql, sql_folder

__all__ = ["MARTS", "VIEWS", "build_marts", "create_views", "view_statements"]

VIEWS = (
    "redrive_rules",
    "error_classes",
    "epochs",
    "failures",
    "case_log",
    "cases",
    "redrives",
    "service_traffic",
)
"""The views, each after those that it reads: `sql/views`, and two that are made from Python."""

GENERATED_VIEWS = ("redrive_rules", "error_classes")

_POLARS = {
    "resolution_times": resolution.resolution_times,
    "resolution_curves": resolution.resolution_curves,
}

MARTS = (*sorted(file.stem for file in (sql_folder() / "marts").glob("*.sql")), *_POLARS)
"""The names of all marts: the SQL files in alphabetical order, then those in Polars."""

# Read by most marts and dear to compute: a table of the connection while the marts are built.
_SHARED = ("epochs", "failures", "case_log", "cases")


def view_statements(redrive_cap: int = 3) -> list[str]:
    """The statements that make the views, in order; whoever runs them again changes nothing."""
    return [f"CREATE OR REPLACE VIEW {name} AS\n{_view_sql(name, redrive_cap)}" for name in VIEWS]


def create_views(connection: duckdb.DuckDBPyConnection, redrive_cap: int = 3) -> None:
    """Make the views on a connection that shows the base tables.

    Raises QueryError where one of them is missing or has other columns.
    """
    for name, statement in zip(VIEWS, view_statements(redrive_cap), strict=True):
        try:
            connection.execute(statement)
        except duckdb.Error as error:
            raise QueryError(f"The view {name} can not be made: {_first_line(error)}") from error


def build_marts(
    connection: duckdb.DuckDBPyConnection,
    now: datetime,
    names: Sequence[str] | None = None,
    *,
    redrive_cap: int = 3,
) -> dict[str, pa.Table]:
    """Compute the marts `names`, or all, as of `now` (aware): Arrow tables by name.

    Leaves the views on the connection. Times in the result are UTC, whatever the connection's
    time zone. Raises QueryError with the name of the mart or view that failed.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    wanted = MARTS if names is None else tuple(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in MARTS]:
        raise QueryError(f"There is no mart {unknown[0]}; there are {', '.join(MARTS)}.")
    create_views(connection, redrive_cap)
    tables = {}
    with _shared_views_as_tables(connection, redrive_cap):
        for name in wanted:
            try:
                tables[name] = _build(connection, now, name)
            except (duckdb.Error, pl.exceptions.PolarsError, pa.ArrowException) as error:
                raise QueryError(f"The mart {name} failed: {_first_line(error)}") from error
    return tables


def _build(connection: duckdb.DuckDBPyConnection, now: datetime, name: str) -> pa.Table:
    if name in _POLARS:
        cases = pl.DataFrame(_query(connection, now, resolution.CASES_SQL))
        return _plain(_POLARS[name](cases, now).to_arrow(compat_level=pl.CompatLevel.oldest()))
    return _query(connection, now, read_sql(f"marts/{name}.sql"))


def _query(connection: duckdb.DuckDBPyConnection, now: datetime, sql: str) -> pa.Table:
    (statement,) = connection.extract_statements(sql)
    given = {"now": now} if "now" in statement.named_parameters else {}
    return _plain(connection.sql(sql, params=given).to_arrow_table())


@contextmanager
def _shared_views_as_tables(
    connection: duckdb.DuckDBPyConnection, redrive_cap: int
) -> Iterator[None]:
    """Hide the views that most marts read behind temporary tables of the same names."""
    try:
        for name in _SHARED:
            try:
                connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE {name} AS\n{_view_sql(name, redrive_cap)}"
                )
            except duckdb.Error as error:
                raise QueryError(f"The view {name} failed: {_first_line(error)}") from error
        yield
    finally:
        for name in _SHARED:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")


def _view_sql(name: str, redrive_cap: int) -> str:
    """A view's SELECT: a file of `sql/views`, or one row of settings and the error families."""
    if name == "redrive_rules":
        return f"SELECT {int(redrive_cap)} AS redrive_cap"
    if name == "error_classes":
        return _error_classes()
    return read_sql(f"views/{name}.sql")


def _error_classes() -> str:
    """The families of `deadletter.error_families` as rows: error_class, family."""
    rows = [
        f"('{name}', '{family}')"
        for family, types in (("transient", TRANSIENT), ("critical", CRITICAL))
        for name in with_subclasses(types)
    ]
    values = ", ".join(rows)
    return f"SELECT error_class, family FROM (VALUES {values}) AS f (error_class, family)"  # noqa: S608


def _plain(table: pa.Table) -> pa.Table:
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
