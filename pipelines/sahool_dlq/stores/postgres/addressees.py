"""Which consumer failed in `failed_events f`, and to which it is redriven, in SQL."""

from typing import Any

from psycopg import Connection

from sahool_dlq.deadletter.record import BRIDGED_REASONS

__all__ = ["ADDRESS", "FAILED_AT", "IS_FOREIGN", "pending_addressees"]

FAILED_AT = "(nullif(f.original_stream, '') || '/' || nullif(f.consumer_name, ''))"
"""`<stream>/<durable>` that failed; null if unknown."""

ADDRESS = f"coalesce(f.handed_to, {FAILED_AT})"
"""`<stream>/<durable>` of a failure's redrives: the one of its latest redrive, else the one that
failed.
"""

IS_FOREIGN = f"(f.dlq_reason = ANY(%s) OR {ADDRESS} IS DISTINCT FROM {FAILED_AT})"
"""Whether that may be a consumer without our library, with `BRIDGED_REASONS`."""


def pending_addressees(connection: Connection[Any]) -> list[tuple[str, str, bool]]:
    """For all pending failures: consumer, subject of the events, and whether it may be a consumer
    without our library.
    """
    return connection.execute(
        f"SELECT {ADDRESS}, f.original_subject, coalesce(bool_and({IS_FOREIGN}), false)"  # noqa: S608  (our own names, bound values)
        f" FROM failed_events f WHERE f.status = 'pending' AND {ADDRESS} IS NOT NULL GROUP BY 1, 2",
        [list(BRIDGED_REASONS)],
    ).fetchall()
