"""Results of each `dlq verify`, in PostgreSQL: for the alert rules and the report."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl
from psycopg import Connection
from psycopg.types.json import Jsonb

__all__ = ["VERIFICATION", "keep_verification", "last_verifications"]

_MOST_FINDINGS = 100  # kept of one run

VERIFICATION = {
    "started_at": pl.Datetime("us", "UTC"),
    "seconds": pl.Float64(),
    "files": pl.Int64(),
    "read_bytes": pl.Int64(),
    "unchecked_files": pl.Int64(),
    "wrong_count": pl.Int64(),
    "repaired_count": pl.Int64(),
    "wrong": pl.List(pl.String()),
}
"""A verification for the report; `wrong` has one sentence for each unrepaired finding."""


def keep_verification(
    connection: Connection[Any],
    *,
    started_at: datetime,
    seconds: float,
    files: int,
    read_bytes: int,
    unchecked_files: int,
    findings: Sequence[dict[str, Any]],
) -> None:
    """Store the findings of a verification."""
    repaired = sum(bool(finding["is_repaired"]) for finding in findings)
    wrong_first = sorted(findings, key=lambda finding: bool(finding["is_repaired"]))
    connection.execute(
        "INSERT INTO verifications (started_at, seconds, files, read_bytes, unchecked_files,"
        " wrong_count, repaired_count, findings) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [
            *(started_at, seconds, files, read_bytes, unchecked_files),
            *(len(findings) - repaired, repaired, Jsonb(wrong_first[:_MOST_FINDINGS])),
        ],
    )


def last_verifications(connection: Connection[Any], count: int) -> pl.DataFrame:
    """The last verifications, newest first; VERIFICATION."""
    rows = connection.execute(
        "SELECT started_at, seconds, files, read_bytes, unchecked_files, wrong_count,"
        " repaired_count, ARRAY(SELECT f ->> 'what' FROM jsonb_array_elements(findings) AS f"
        " WHERE NOT (f ->> 'is_repaired')::boolean)"
        " FROM verifications ORDER BY started_at DESC, id DESC LIMIT %s",
        [count],
    ).fetchall()
    return pl.DataFrame(rows, schema=VERIFICATION, orient="row")
