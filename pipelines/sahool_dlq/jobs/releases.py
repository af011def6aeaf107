"""Which versions of a service came when, and which failure groups began with one."""

import polars as pl

from sahool_dlq.jobs.lake_views import query
from sahool_dlq.settings import Settings

__all__ = ["groups_of_releases", "releases"]

_RELEASES = """
WITH versions AS (
    SELECT
        service,
        consumer_version,
        min(dlq_timestamp) AS first_failed_at,
        count(*) AS failure_count
    FROM dead_letters
    WHERE service IS NOT NULL AND consumer_version IS NOT NULL
    GROUP BY ALL
),

starts AS (SELECT DISTINCT service, started_at FROM service_totals),

releases AS (
    SELECT
        v.service,
        v.consumer_version,
        coalesce(s.started_at, v.first_failed_at) AS came_at,
        v.failure_count
    FROM versions AS v
    ASOF LEFT JOIN starts AS s ON s.service = v.service AND s.started_at <= v.first_failed_at
)
"""

_GROUPS = """,

begun AS (
    SELECT
        group_id,
        service,
        arg_min_null(consumer_version, dlq_timestamp) AS consumer_version,
        min(dlq_timestamp) AS began_at
    FROM dead_letters
    GROUP BY ALL
)

SELECT b.group_id, r.service, r.consumer_version, r.came_at
FROM begun AS b
INNER JOIN releases AS r ON r.service = b.service AND r.consumer_version = b.consumer_version
WHERE
    b.began_at < r.came_at + INTERVAL '2' HOUR
    AND EXISTS (FROM releases AS o WHERE o.service = r.service AND o.came_at < r.came_at)
ORDER BY r.came_at, b.group_id
"""


def releases(settings: Settings) -> pl.DataFrame:
    """The versions that failed: service, consumer_version, came_at (UTC) and failure_count.

    A version came when the process started that failed first with it, as the consumers' totals
    say; without totals, with its first failure.
    """
    return query(settings, f"{_RELEASES} FROM releases ORDER BY came_at, service")


def groups_of_releases(settings: Settings) -> pl.DataFrame:
    """The groups that began within two hours of a release, that of a service's first left out.

    Columns: group_id, service, consumer_version and came_at (UTC).
    """
    return query(settings, f"{_RELEASES}{_GROUPS}")
