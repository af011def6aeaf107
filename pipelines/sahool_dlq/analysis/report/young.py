"""A log so young that its charts use seconds instead of minutes."""

from datetime import datetime, timedelta

import polars as pl

__all__ = ["MOMENTS_SQL", "is_young"]

_YOUNG = timedelta(hours=1)

MOMENTS_SQL = """
WITH changes AS (
    SELECT opened_at AS changed_at, service, error_class, 1 AS opened, 0 AS closed FROM cases
    UNION ALL
    SELECT closed_at AS changed_at, service, error_class, 0 AS opened, 1 AS closed FROM cases
    WHERE closed_at IS NOT NULL
)

SELECT
    DATE_TRUNC('second', changed_at) AS "at",
    service,
    error_class,
    CAST(SUM(opened) AS BIGINT) AS opened_count,
    CAST(SUM(closed) AS BIGINT) AS closed_count
FROM changes
GROUP BY ALL
ORDER BY ALL
"""
"""The frame `moments`: cases that were opened and closed in a second (`at`, its start, UTC)."""


def is_young(failures_minutely: pl.DataFrame, now: datetime) -> bool:
    """Whether all failures of the log are from the last hour; False if there are none."""
    oldest = failures_minutely["minute_at"].min()
    return isinstance(oldest, datetime) and now - oldest < _YOUNG
