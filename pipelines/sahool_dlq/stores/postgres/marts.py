"""The marts in PostgreSQL for operators and Grafana, filled together in one transaction.

Migrations create their tables, so filling them needs no right to create objects.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from sahool_dlq.errors import SchemaError

__all__ = ["fill_marts"]


def fill_marts(connection: Connection[Any], marts: Mapping[str, pl.DataFrame]) -> None:
    """Fill `mart_<name>` with exactly these rows; readers see either all old or all new ones.

    Raises SchemaError if a table does not have the columns of its mart.
    """
    with connection.transaction():
        for name, frame in marts.items():
            _fill(connection, f"mart_{name}", frame)


def _fill(connection: Connection[Any], name: str, frame: pl.DataFrame) -> None:
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0"
        " AND NOT attisdropped ORDER BY attnum",
        [f"dlq.{name}"],
    ).fetchall()
    if [column for (column,) in found] != frame.columns:
        raise SchemaError(
            f"The database {connection.info.dbname} has no table dlq.{name} with the columns that"
            " this version of dlq fills: run `dlq migrate`, with the same version."
        )
    table = Identifier("dlq", name)
    connection.execute(SQL("DELETE FROM {}").format(table))
    columns = SQL(", ").join(Identifier(column) for column in frame.columns)
    statement = SQL("COPY {} ({}) FROM STDIN").format(table, columns)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in frame.iter_rows():
            copy.write_row(row)
