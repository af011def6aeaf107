"""The lake as DuckDB tables: views over the live files of each table's log.

Never a glob: a folder also holds files that are in no log entry, and those of older versions.
"""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import duckdb
import polars as pl

from pipelines.errors import LakeError, QueryError
from pipelines.stores.lake import LAYOUTS, Lake

_TYPES = {pl.String: "VARCHAR", pl.Int64: "BIGINT", pl.Date: "DATE", pl.Datetime: "TIMESTAMPTZ"}


def connect(lake: Lake) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB, in UTC, with the lake's tables as views.

    Raises QueryError where the lake can not be read.
    """
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in base_views(lake).values():
            connection.execute(statement)
    except duckdb.Error as error:
        raise QueryError(f"The lake at {lake.uri} can not be read: {error}") from error
    return connection


def lock(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """For SQL that a person typed: no access but to the lake, and no way to change that.

    DuckDB would still write into the lake (COPY, ATTACH), so the caller also checks the statement.
    """
    connection.execute("SET allowed_directories = [$folder]".replace("$folder", _quoted(lake.uri)))
    connection.execute("SET enable_external_access = false")
    connection.execute("SET memory_limit = '4GB'")
    connection.execute("SET lock_configuration = true")


def base_views(lake: Lake) -> dict[str, str]:
    """For each table of the log, the statement that makes it a view over its live files."""
    return {name: f"CREATE OR REPLACE VIEW {name} AS {_select(lake, name)};" for name in LAYOUTS}


def mart_views(lake: Lake, names: list[str]) -> dict[str, str]:
    """The same for the marts that have been built."""
    return {
        name: f"CREATE OR REPLACE VIEW mart_{name} AS {files_sql(files)};"
        for name in names
        if (files := lake.files(f"marts/{name}"))
    }


def write_views_file(lake: Lake, statements: list[str]) -> Path | None:
    """Write `views.sql` beside a local lake, so that a plain DuckDB shell sees its tables.

    Raises LakeError where it can not be written.
    """
    if "://" in lake.uri:
        return None
    head = (
        "-- The lake's tables for a DuckDB shell: duckdb -init views.sql\n"
        "-- Written by every drain and by `dlq views`; the file list is that of this moment.\n"
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
            f"{file} was not written ({error.strerror}): the rows are in the lake all the same; run"
            " `dlq views` once the folder can be written."
        ) from error
    return file


def files_sql(files: Sequence[str]) -> str:
    """The rows of some files of one table; dlq_date may be in the folders' names, not in them."""
    listed = ", ".join(map(_quoted, files))
    by_day = ", hive_partitioning = true, hive_types = {'dlq_date': DATE}"
    options = by_day if any("/dlq_date=" in file for file in files) else ""
    return f"SELECT * FROM read_parquet([{listed}], union_by_name = true{options})"  # noqa: S608


def _select(lake: Lake, name: str) -> str:
    layout = LAYOUTS[name]
    files = lake.files(name)
    empty = ", ".join(
        f'NULL::{_TYPES[type(dtype)]} AS "{column}"' for column, dtype in layout.schema.items()
    )
    if not files:
        return f"SELECT {empty} WHERE false"
    # dlq_date is in the folders' names, not in the files.
    partitioned = ", hive_partitioning = true, hive_types = {'dlq_date': DATE}"
    options = "union_by_name = true" + (partitioned if layout.partition_by else "")
    columns = ", ".join(f'"{column}"' for column in layout.schema)  # `at` is a keyword
    # Files that an older version wrote lack columns: no row has them all.
    return (
        f"SELECT {columns} FROM (SELECT {empty} WHERE false UNION ALL BY NAME"  # noqa: S608
        f" SELECT * FROM read_parquet([{', '.join(map(_quoted, files))}], {options}))"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
