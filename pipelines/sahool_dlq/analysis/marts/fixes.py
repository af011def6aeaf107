"""The mart `fixes`: which versions are older than the one that a person said repairs a group.

In Python, because SQL cannot compare versions.
"""

from collections.abc import Callable

import polars as pl

from sahool_dlq.analysis.versions import older_than

__all__ = ["fixes"]

_DECIDED = """
SELECT service, group_id, resolved_in_version, MAX(last_resolved_at) AS resolved_at
FROM fixes_daily
GROUP BY service, group_id, resolved_in_version
"""
_FAILED = """
SELECT group_id, service, consumer_version, MAX(last_failed_at) AS last_failed_at
FROM versions_daily
WHERE failure_count > 0 AND group_id IN (SELECT group_id FROM fixes_daily)
GROUP BY group_id, service, consumer_version
"""
_APPEARED = """
SELECT service, consumer_version
FROM (
    SELECT service, consumer_version, started_at AS seen_at FROM service_totals
    UNION ALL
    SELECT service, consumer_version, COALESCE(first_failed_at, first_succeeded_at) AS seen_at
    FROM versions_daily
) AS seen
WHERE consumer_version IS NOT NULL AND service IN (SELECT service FROM fixes_daily)
GROUP BY service, consumer_version
ORDER BY service, MIN(seen_at), consumer_version
"""
_COLUMNS = (
    *("group_id", "service", "consumer_version", "resolved_in_version", "resolved_at"),
    *("is_older", "last_failed_at"),
)


def fixes(query: Callable[[str], pl.DataFrame]) -> pl.DataFrame:
    """The mart, from `fixes_daily` and `versions_daily`; `service_totals` only if it has rows."""
    decided = query(_DECIDED).sort("resolved_at", "resolved_in_version")  # a tie has one order too
    latest = decided.unique(["group_id", "service"], keep="last")
    rows = query(_FAILED).join(
        latest, on=["group_id", "service"], how="left", nulls_equal=True, maintain_order="left"
    )
    appeared = _versions_by_service(query(_APPEARED)) if latest.height else {}
    older = [
        fix is not None and version in older_than(fix, appeared.get(service, []))
        for service, version, fix in rows.select(
            "service", "consumer_version", "resolved_in_version"
        ).iter_rows()
    ]
    told = rows.with_columns(is_older=pl.Series(older, dtype=pl.Boolean))
    return told.select(_COLUMNS).sort("group_id", "service", "consumer_version")


def _versions_by_service(appeared: pl.DataFrame) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for service, version in appeared.iter_rows():
        found.setdefault(service, []).append(version)
    return found
