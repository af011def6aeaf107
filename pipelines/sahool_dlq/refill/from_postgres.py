"""Dead letters from PostgreSQL, for a lake that lost them and a stream that no longer has them.

This is less complete: long texts are cut to the columns, and values that only the lake stores are
missing. Such a row has `restored` in its column `envelope`.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl
from psycopg import Connection
from psycopg.rows import dict_row

from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.rows import DEAD_LETTER_SCHEMA, IDENTITY

_GROUPS = ("group_id", "parent_id", "cause_id", "fingerprint_version")
_ROWS = """
SELECT id::text AS failure_id, f.*, original_data::text AS original_data,
       original_headers::text AS original_headers, attempts::text AS attempts,
       CASE WHEN status = 'superseded' THEN root_failure_id::text END AS root_failure_id,
       service(f) AS service,
       'restored' AS envelope, 0 AS size_bytes, %(prefix)s || '.dlq.' || event_type AS subject
FROM failed_events f WHERE id = ANY(%(ids)s::uuid[]) ORDER BY epoch, dlq_sequence
"""


def letters_from_postgres(
    connection: Connection[Any],
    ids: Sequence[str],
    subject_prefix: str,
    grouping: GroupingRules | None = None,
) -> pl.DataFrame:
    """The dead letters of these failures; DEAD_LETTER_SCHEMA."""
    cursor = connection.cursor(row_factory=dict_row)
    rows = cursor.execute(_ROWS, {"ids": list(ids), "prefix": subject_prefix}).fetchall()
    frame = pl.DataFrame(
        {name: [row.get(name) for row in rows] for name in DEAD_LETTER_SCHEMA},
        schema=DEAD_LETTER_SCHEMA,
    ).with_columns(dlq_date=pl.col("published_at").dt.date())
    known = frame.select(_GROUPS)
    computed = add_fingerprint(frame.drop(_GROUPS), grouping)
    frame = computed.with_columns(known.select(pl.col(name).alias(name) for name in _GROUPS))
    return frame.select(pl.col(name).cast(dtype) for name, dtype in DEAD_LETTER_SCHEMA.items())


def identities(connection: Connection[Any], stream: str) -> pl.DataFrame:
    """Every row of failed_events that came from a stream's log; IDENTITY."""
    query = (
        "COPY (SELECT epoch, dlq_sequence, (extract(epoch FROM published_at) * 1000000)::bigint"
        " AS published_at, id AS failure_id FROM failed_events"
        " WHERE dlq_sequence IS NOT NULL AND starts_with(epoch, %s)) TO STDOUT (FORMAT csv)"
    )
    with connection.cursor() as cursor, cursor.copy(query, [f"{stream}@"]) as copy:
        data = b"".join(bytes(block) for block in copy)
    if not data:
        return pl.DataFrame(schema=IDENTITY)
    read = {name: pl.Int64() if name == "published_at" else d for name, d in IDENTITY.items()}
    frame = pl.read_csv(data, has_header=False, new_columns=list(read), schema_overrides=read)
    return frame.with_columns(pl.col("published_at").cast(IDENTITY["published_at"]))
