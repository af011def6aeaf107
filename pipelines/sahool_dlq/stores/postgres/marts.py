"""The marts that operators and Grafana read, in Postgres: filled together, in one transaction.

Migrations make their tables, so that who fills them need not be able to make anything.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from sahool_dlq.errors import SchemaError

__all__ = ["fill_marts"]


def fill_marts(connection: Connection[Any], marts: Mapping[str, pl.DataFrame]) -> None:
    """Make `mart_<name>` hold exactly these rows; readers see all the old ones or all the new.

    Raises SchemaError where a table has not the columns of its mart.
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
