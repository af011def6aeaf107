"""The lake as DuckDB tables: views over the live files of each table's log.

Never a glob, because a folder also contains files that are in no log entry, and files of older
versions. Arrow reads the files of an object store for DuckDB, which would need an extension for
that; it reads all files for a connection without file access.
"""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa

from sahool_dlq.errors import LakeError, QueryError
from sahool_dlq.stores.lake.lake import LAYOUTS, Lake

_PIVOTING = ("PIVOT", "PIVOT_WIDER", "FROM", "SELECT", "WITH", "EXPLAIN")
_TYPES = {pl.String: "VARCHAR", pl.Int64: "BIGINT", pl.Date: "DATE", pl.Datetime: "TIMESTAMPTZ"}


def connect(lake: Lake, *, is_sealed: bool = False) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB, in UTC, with the lake's tables as views.

    If sealed, it needs no files itself, so that `seal` can forbid them. Raises QueryError if the
    lake cannot be read.
    """
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET parquet_metadata_cache = true")  # each view asks for it again
        for name in LAYOUTS:
            connection.execute(_view(name, source(connection, lake, name, is_sealed=is_sealed)))
    except duckdb.Error as error:
        raise QueryError(f"The lake at {lake.uri} cannot be read: {error}") from error
    return connection


def show_marts(connection: duckdb.DuckDBPyConnection, lake: Lake, names: list[str]) -> None:
    """Add the built marts, as `mart_<name>`, to a sealed connection."""
    for name in names:
        if found := source(connection, lake, f"marts/{name}", is_sealed=True):
            connection.execute(_mart_view(name, found))


def seal(connection: duckdb.DuckDBPyConnection) -> None:
    """For SQL of a user: no file, no network, and no way to change that.

    Not even the lake's folder is allowed, because permission to read a file there is also
    permission to write it. The type of a statement is not enough: EXPLAIN ANALYZE executes its
    statement, and a SELECT can have a COPY in its WITH.
    """
    connection.execute("SET enable_external_access = false")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET memory_limit = '4GB'")
    connection.execute("SET lock_configuration = true")


@contextmanager
def time_limit(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt the statements of a connection after this time; then raises QueryError."""
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise QueryError(
            f"The statement was stopped after {seconds:g} seconds: let it read less, or give it "
            "more time (--seconds)."
        ) from error
    finally:
        timer.cancel()


def ask(
    connection: duckdb.DuckDBPyConnection, statement: str, limit: int | None = None
) -> pa.Table:
    """The result of one reading statement on a sealed connection: the first `limit` rows, or all.

    Names may be repeated, and intervals are Arrow's. Raises QueryError for any other statement, and
    duckdb.Error.
    """
    statements = connection.extract_statements(statement)
    if len(statements) != 1 or not _is_reading(statements[0]):
        raise QueryError(
            "Give exactly one statement that reads: SELECT, FROM, WITH, VALUES, PIVOT, DESCRIBE,"
            " SUMMARIZE, SHOW or EXPLAIN."
        )
    rows = connection.sql(statement)
    if limit is not None and statements[0].type != duckdb.StatementType.EXPLAIN:
        rows = rows.limit(limit)
    table: pa.Table = rows.to_arrow_table()
    return table


def _is_reading(statement: duckdb.Statement) -> bool:
    """Whether a statement only reads, by its type; `seal` prevents the rest.

    A PIVOT is several statements in one, which can be around a CREATE TABLE or a COPY too.
    """
    if statement.type == duckdb.StatementType.MULTI:
        bare = re.sub(r"--[^\n]*|/\*.*?\*/|[\s(]+", " ", statement.query, flags=re.DOTALL).split()
        return bool(bare) and bare[0].upper() in _PIVOTING
    return statement.type in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def local_views(lake: Lake, marts: list[str]) -> tuple[list[str], list[str]]:
    """The statements that create views for a local lake's tables and for its marts."""
    sources = {name: _files(lake, f"marts/{name}") for name in marts}
    return (
        [_view(name, _files(lake, name)) for name in LAYOUTS],
        [_mart_view(name, source) for name, source in sources.items() if source],
    )


def write_views_file(lake: Lake, statements: list[str]) -> Path:
    """Write `views.sql` beside a local lake, so that a plain DuckDB shell sees its tables.

    Raises LakeError if it cannot be written.
    """
    head = (
        "-- The lake's tables for a DuckDB shell: duckdb -init views.sql\n"
        "-- Written by every drain and by `dlq views`; the file list is of that time.\n"
        "SET TimeZone = 'UTC';\n"
    )
    file = Path(lake.uri) / "views.sql"
    fresh = file.with_suffix(f".{uuid.uuid4().hex[:8]}")  # two drains may end at once
    try:
        fresh.write_text(head + "\n".join(statements) + "\n", encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise LakeError(
            f"{file} was not written ({error.strerror}): the rows are in the lake nevertheless; run"
            " `dlq views` once the folder can be written."
        ) from error
    return file


def source(
    connection: duckdb.DuckDBPyConnection, lake: Lake, path: str, *, is_sealed: bool = False
) -> str | None:
    """The source of a table for a connection; None if there is no such table."""
    if lake.is_local and not is_sealed:
        return _files(lake, path)
    dataset = lake.dataset(path)
    if dataset is None:
        return None
    connection.register(f"{path} in store", dataset)
    return f'"{path} in store"'


def _files(lake: Lake, path: str) -> str | None:
    files = lake.files(path)
    return files_source(files) if files else None


def files_source(files: Sequence[str]) -> str:
    """The source of some files of one table."""
    # dlq_date is in the folders' names, not in the files.
    is_by_day = any("/dlq_date=" in file for file in files)
    by_day = ", hive_partitioning = true, hive_types = {'dlq_date': DATE}" if is_by_day else ""
    return f"read_parquet([{', '.join(map(_quoted, files))}], union_by_name = true{by_day})"


def _view(table: str, source: str | None) -> str:
    """A view of a table of the log, with its columns."""
    schema = LAYOUTS[table].schema
    empty = ", ".join(
        f'NULL::{_TYPES[type(kind)]} AS "{column}"' for column, kind in schema.items()
    )
    rows = f"SELECT {empty} WHERE false"
    if source:
        columns = ", ".join(f'"{name}"' for name in schema)  # `at` is a keyword
        # Files that an older version wrote lack columns: no row has them all.
        rows = f"SELECT {columns} FROM ({rows} UNION ALL BY NAME SELECT * FROM {source})"  # noqa: S608  (our own names, bound values)
    return f"CREATE OR REPLACE VIEW {table} AS {rows};"


def empty_table(table: str) -> str:
    """The statement that creates a table of the log, without rows."""
    return _view(table, None)


def _mart_view(name: str, source: str) -> str:
    return f"CREATE OR REPLACE VIEW mart_{name} AS SELECT * FROM {source};"  # noqa: S608  (our own names, bound values)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
