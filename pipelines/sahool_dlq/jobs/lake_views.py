"""The lake as SQL: its views beside it, and one statement over them."""

# Annotations stay text: see `stores.lake.sql`.
from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

import duckdb
import polars as pl
import pyarrow as pa

from sahool_dlq.analysis.marts.build import MARTS, facts
from sahool_dlq.analysis.marts.views import create_views, view_statements
from sahool_dlq.errors import QueryError, UnknownNameError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import (
    ask,
    connect,
    local_views,
    seal,
    show_marts,
    time_limit,
    write_views_file,
)


def write_views(settings: Settings) -> str | None:
    """Write `views.sql` beside a local lake; returns its path, None for an object store."""
    lake = Lake(settings.lake)
    if not lake.is_local:
        return None
    tables, marts = local_views(lake, list(MARTS))
    views = [f"{view.rstrip().rstrip(';')};" for view in view_statements()]
    return str(write_views_file(lake, [*tables, *views, *marts]))


def answer(
    settings: Settings, statement: str, limit: int | None = None, seconds: float = 300
) -> pa.Table:
    """The first rows, or all, of one reading statement over the lake; it cannot change anything.

    Names may be repeated, and intervals are Arrow's. Raises QueryError for any other statement, if
    DuckDB refuses it, and if it takes too long; UnknownNameError if there is no such table.
    """
    lake = Lake(settings.lake)
    with connect(lake, is_sealed=True) as connection:
        try:
            create_views(connection)
            show_marts(connection, lake, list(MARTS))
            with time_limit(connection, seconds), _facts_of(connection, statement):
                seal(connection)
                return ask(connection, statement, limit)
        except duckdb.CatalogException as error:
            if "Table with name" in str(error):
                raise UnknownNameError(_no_table(str(error))) from error
            raise QueryError(f"DuckDB refused the statement: {error}") from error
        except duckdb.Error as error:
            raise QueryError(f"DuckDB refused the statement: {error}") from error


def _facts_of(
    connection: duckdb.DuckDBPyConnection, statement: str
) -> AbstractContextManager[None]:
    """The shared base views, computed once, if a statement may use them."""
    is_asked = re.search(r"\b(failures|openings|cases|groups|redrives)\b", statement, re.IGNORECASE)
    return facts(connection) if is_asked else nullcontext()


def _no_table(said: str) -> str:
    """DuckDB's own text, and where the names are listed."""
    name = re.search(r"Table with name (\S+)", said)
    guess = re.search(r'Did you mean "([^"]+)"', said)
    asked = f"There is no table {name[1] if name else ''} in the lake"
    if name and name[1] in MARTS:
        return f"{asked}; did you mean mart_{name[1]}? `dlq tables` lists them."
    if name and name[1].removeprefix("mart_") in MARTS:
        return f"{asked} yet: `dlq marts` creates it."
    return f"{asked}{f'; did you mean {guess[1]}?' if guess else '.'} `dlq tables` lists them."


def query(
    settings: Settings, statement: str, limit: int | None = None, seconds: float = 300
) -> pl.DataFrame:
    """See `answer`; for statements with unique column names and without intervals."""
    return pl.DataFrame(answer(settings, statement, limit, seconds))


def newest_at(settings: Settings) -> datetime | None:
    """When the newest message in the lake was published; None for an empty lake."""
    found = query(
        settings,
        "SELECT MAX(published_at) AS newest_at FROM"
        " (SELECT published_at FROM dead_letters UNION ALL SELECT published_at FROM case_events)",
    )
    newest: datetime | None = found["newest_at"].item(0)
    return newest
