"""Tombstones: erased messages of the log, by their position.

Two messages are the same if life, sequence and server time are equal (see `drain.epochs`), so a
position is enough, and no content is stored. PostgreSQL has the list, the lake a copy, which fills
a lost or restored database again.
"""

import hashlib
import hmac
from datetime import datetime
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.deadletter.rows import ERASED_SCHEMA
from sahool_dlq.stores.lake.lake import Lake

__all__ = [
    "LIFE",
    "copy_to_lake",
    "erased_messages",
    "finish",
    "is_unfinished",
    "not_erased",
    "recall",
    "remember",
    "tenant_hash",
]

_TABLE = "erased_messages"
_PLACE = list(ERASED_SCHEMA)
LIFE = pl.col("epoch").str.replace("#[0-9]+$", "").alias("life")
"""The stream's life in which a row's message was stored: its epoch without the fork."""


def tenant_hash(tenant: str, key: str | None) -> str:
    """A hash instead of a tenant's id: equal for equal ids and keys."""
    if key is None:
        return hashlib.sha256(tenant.encode()).hexdigest()
    return hmac.new(key.encode(), tenant.encode(), "sha256").hexdigest()


def erased_messages(
    connection: Connection[Any], life: str | None = None, after: int = 0, up_to: int = 2**62
) -> pl.DataFrame:
    """The tombstones of a life of the stream, or all, above `after` in order; ERASED_SCHEMA."""
    rows = connection.execute(
        "SELECT life, dlq_sequence, published_at FROM erased_messages"
        " WHERE (%s::text IS NULL OR life = %s) AND dlq_sequence > %s AND dlq_sequence <= %s"
        " ORDER BY dlq_sequence",
        [life, life, after, up_to],
    ).fetchall()
    return pl.DataFrame(rows, schema=ERASED_SCHEMA, orient="row")


def not_erased(rows: pl.DataFrame, erased: pl.DataFrame) -> pl.DataFrame:
    """Rows with `epoch`, `dlq_sequence` and `published_at`, without those that have a tombstone."""
    if erased.is_empty() or rows.is_empty():
        return rows
    return (
        rows.with_columns(LIFE)
        .join(erased, on=_PLACE, how="anti", maintain_order="left")
        .drop("life")
    )


def remember(
    connection: Connection[Any],
    messages: pl.DataFrame,
    *,
    hashed_tenant: str,
    stream: str,
    last_sequence: int,
    actor: str,
    reason: str,
) -> str:
    """Write tombstones for these messages (ERASED_SCHEMA); returns the id of the erasure.

    An unfinished erasure of the same tenant is continued.
    """
    with connection.transaction():
        row = connection.execute(
            "UPDATE erasures SET last_sequence = %s WHERE tenant_hash = %s AND stream = %s"
            " AND finished_at IS NULL RETURNING id::text",
            [last_sequence, hashed_tenant, stream],
        ).fetchone()
        row = (
            row
            or connection.execute(
                "INSERT INTO erasures (tenant_hash, stream, last_sequence, requested_by, reason)"
                " VALUES (%s, %s, %s, %s, %s) RETURNING id::text",
                [hashed_tenant, stream, last_sequence, actor, reason],
            ).fetchone()
        )
        _insert(connection, messages)
    assert row is not None
    return str(row[0])


def is_unfinished(connection: Connection[Any], hashed_tenant: str) -> bool:
    """Whether an erasure of this tenant is not finished."""
    found = connection.execute(
        "SELECT FROM erasures WHERE tenant_hash = %s AND finished_at IS NULL", [hashed_tenant]
    )
    return found.fetchone() is not None


def finish(connection: Connection[Any], erasure: str) -> None:
    """Record that nothing is left to do."""
    connection.execute("UPDATE erasures SET finished_at = now() WHERE id = %s", [erasure])


def copy_to_lake(connection: Connection[Any], lake: Lake, now: datetime) -> None:
    """Make the lake's list equal to that of PostgreSQL."""
    table = lake.table(_TABLE)
    table.replace(table.files, [erased_messages(connection)], now, is_data_change=True)


def recall(connection: Connection[Any], lake: Lake) -> None:
    """Copy tombstones from the lake that a lost or restored database does not have."""
    if lake.version(_TABLE) is None:
        return
    (known,) = connection.execute("SELECT count(*) FROM erased_messages").fetchall()[0]
    if known < sum(file.row_count or 0 for file in lake.table(_TABLE).files):
        _insert(connection, lake.read(_TABLE))


def _insert(connection: Connection[Any], messages: pl.DataFrame) -> None:
    connection.execute(
        "INSERT INTO erased_messages (life, dlq_sequence, published_at)"
        " SELECT * FROM unnest(%s::text[], %s::bigint[], %s::timestamptz[]) ON CONFLICT DO NOTHING",
        [messages[name].to_list() for name in _PLACE],
    )
