"""Findings of the doctor, in PostgreSQL: for the alert `loses_data`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

__all__ = ["keep_diagnosis"]

_MOST_FINDINGS = 100  # kept of one look
_KEPT = "30 days"


def keep_diagnosis(
    connection: Connection[Any],
    *,
    at: datetime,
    loses: int,
    may_lose: int,
    findings: Sequence[dict[str, Any]],
) -> None:
    """Store the findings of a run, the worst first, and delete those older than a month."""
    connection.execute(
        "INSERT INTO diagnoses (at, loses_count, may_lose_count, findings)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [at, loses, may_lose, Jsonb(list(findings[:_MOST_FINDINGS]))],
    )
    connection.execute("DELETE FROM diagnoses WHERE at < %s - %s::interval", [at, _KEPT])
