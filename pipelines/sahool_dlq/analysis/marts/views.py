"""The views between the lake's tables and the marts: `sql/views`, and two created from Python.

A connection has the base tables (`dead_letters`, `case_events`, `service_totals`); the views are
based on them, and people query them (`dlq sql`, `views.sql`).
"""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from sahool_dlq.deadletter.cases import ATTEMPTS_PER_OPENING, DEFAULT_REDRIVE_CAP
from sahool_dlq.deadletter.error_families import CONTENT, CRITICAL, TRANSIENT, with_subclasses
from sahool_dlq.errors import QueryError
from sahool_dlq.sqlfiles import read_sql

__all__ = ["GENERATED_VIEWS", "VIEWS", "create_views", "view_sql", "view_statements"]

VIEWS = (
    "redrive_rules",
    "error_classes",
    "epochs",
    "case_log",
    "openings",
    "cases",
    "failures",
    "groups",
    "redrives",
    "service_traffic",
)
"""The views, each after those that it reads."""

_BASE_TABLES = ["dead_letters", "case_events", "service_totals"]

GENERATED_VIEWS = ("redrive_rules", "error_classes")


def view_statements() -> list[str]:
    """The statements that create the views, in order; running them again changes nothing."""
    return [f"CREATE OR REPLACE VIEW {name} AS\n{view_sql(name)}" for name in VIEWS]


def create_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the views on a connection with the base tables.

    Raises QueryError if one of them is missing or has other columns.
    """
    with _base_views_hidden(connection):
        for name, statement in zip(VIEWS, view_statements(), strict=True):
            try:
                connection.execute(statement)
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise QueryError(f"The view {name} cannot be made: {reason}") from error


@contextmanager
def _base_views_hidden(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Empty tables in the place of base tables that are views of files.

    To create a view, DuckDB binds all that it reads: it would open these files dozens of times.
    """
    try:
        found = connection.execute(
            "SELECT view_name, database_name FROM duckdb_views() AS v WHERE NOT temporary"
            " AND list_contains($names, view_name) AND NOT EXISTS (FROM duckdb_views() AS t"
            " WHERE t.temporary AND t.view_name = v.view_name)",
            {"names": _BASE_TABLES},
        ).fetchall()
        for name, database in found:
            connection.execute(f"CREATE TEMP TABLE {name} AS FROM {database}.main.{name} LIMIT 0")
    except duckdb.Error as error:
        raise QueryError(f"The lake cannot be read: {str(error).splitlines()[0]}") from error
    try:
        yield
    finally:
        for name, _ in found:
            connection.execute(f"DROP TABLE temp.{name}")


def view_sql(name: str) -> str:
    """A view's SELECT: a file of `sql/views`, or one row of rules and the error families."""
    if name == "redrive_rules":
        return (
            f"SELECT {DEFAULT_REDRIVE_CAP} AS default_redrive_cap,"
            f" {ATTEMPTS_PER_OPENING} AS attempts_per_opening"
        )
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
    rows += [f"('{name}', 'content')" for name in CONTENT]
    values = ", ".join(rows)
    return f"SELECT error_class, family FROM (VALUES {values}) AS f (error_class, family)"  # noqa: S608  (our own names, bound values)
