"""The marts that operators and Grafana read, in Postgres: replaced together, in one transaction."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from psycopg import Connection
from psycopg.sql import SQL, Identifier

_TYPES = {
    pl.String: "text",
    pl.Boolean: "boolean",
    pl.Date: "date",
    pl.Float64: "double precision",
    pl.Datetime: "timestamptz",
}


def replace_marts(connection: Connection[Any], marts: Mapping[str, pl.DataFrame]) -> None:
    """Make `mart_<name>` hold exactly these rows; readers see all the old ones or all the new.

    A table whose columns have changed is made anew, with the rights of its roles.
    """
    with connection.transaction():
        for name, frame in marts.items():
            _replace(connection, f"mart_{name}", frame)


def _replace(connection: Connection[Any], table: str, frame: pl.DataFrame) -> None:
    wanted = [(name, _type(dtype)) for name, dtype in frame.schema.items()]
    found = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [table],
    ).fetchall()
    plain = {"timestamptz": "timestamp with time zone"}
    if found != [(name, plain.get(kind, kind)) for name, kind in wanted]:
        columns = SQL(", ").join(
            [SQL("{} {}").format(Identifier(name), SQL(kind)) for name, kind in wanted]
        )
        connection.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(table)))
        connection.execute(SQL("CREATE TABLE {} ({})").format(Identifier(table), columns))
        connection.execute("SELECT share_mart(%s::regclass)", [table])
    else:
        connection.execute(SQL("DELETE FROM {}").format(Identifier(table)))
    names = SQL(", ").join(Identifier(name) for name in frame.columns)
    statement = SQL("COPY {} ({}) FROM STDIN").format(Identifier(table), names)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in frame.iter_rows():
            copy.write_row(row)


def _type(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "bigint"
    return _TYPES[type(dtype)]
