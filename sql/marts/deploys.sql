-- The versions of each service, with the groups that each brought, cured and brought back.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per service and consumer_version in a dead letter, a success or the totals.
--   first_seen_at  when its first process started or its first failure came, UTC
--   last_seen_at   newest totals, failure or success, UTC
--   failure_count  cases of this version, and redrives that failed again in it
--   success_count  redrives that succeeded in it
--   brought        groups that failed first in it, joined by ', '; null if there are none
--   cured          groups whose redrives succeeded in it, and that never failed in it; as above
--   brought_back   groups that failed in it after an earlier version had cured them, or after a
--                  person resolved them in this version or a lower one; as above
WITH told AS (
    SELECT
        service,
        group_id,
        consumer_version,
        SUM(failure_count) AS failure_count,
        SUM(success_count) AS success_count,
        MIN(first_failed_at) AS first_failed_at,
        MAX(last_failed_at) AS last_failed_at,
        MIN(first_succeeded_at) AS first_succeeded_at,
        MAX(last_succeeded_at) AS last_succeeded_at
    FROM versions_daily
    GROUP BY service, group_id, consumer_version
),

firsts AS (
    SELECT service, group_id, MIN(first_failed_at) AS first_failed_at
    FROM told
    GROUP BY service, group_id
),

cures AS (
    SELECT service, group_id, MIN(cured_at) AS cured_at
    FROM (
        SELECT service, group_id, first_succeeded_at AS cured_at
        FROM told
        WHERE consumer_version IS NOT NULL AND success_count > 0 AND failure_count = 0

        UNION ALL

        SELECT service, group_id, resolved_at AS cured_at
        FROM fixes
        WHERE resolved_at IS NOT NULL
    ) AS cured
    GROUP BY service, group_id
),

judged AS (
    SELECT
        t.*,
        CASE WHEN t.first_failed_at = f.first_failed_at THEN t.group_id END AS brought,
        CASE WHEN t.failure_count = 0 THEN t.group_id END AS cured,
        CASE
            WHEN
                c.cured_at < t.first_failed_at
                AND t.first_failed_at > f.first_failed_at
                AND NOT COALESCE(x.is_older, FALSE)
                THEN t.group_id
        END AS brought_back
    FROM told AS t
    INNER JOIN firsts AS f ON f.service = t.service AND f.group_id = t.group_id
    LEFT JOIN cures AS c ON c.service = t.service AND c.group_id = t.group_id
    LEFT JOIN fixes AS x
        ON
            x.service = t.service
            AND x.group_id = t.group_id
            AND x.consumer_version = t.consumer_version
    WHERE t.consumer_version IS NOT NULL
),

seen AS (
    SELECT
        service,
        consumer_version,
        first_failed_at AS first_at,
        last_failed_at AS last_at
    FROM judged

    UNION ALL

    SELECT service, consumer_version, first_succeeded_at AS first_at, last_succeeded_at AS last_at
    FROM judged

    UNION ALL

    SELECT service, consumer_version, started_at AS first_at, published_at AS last_at
    FROM service_totals
    WHERE consumer_version IS NOT NULL
),

versions AS (
    SELECT
        service,
        consumer_version,
        MIN(first_at) AS first_seen_at,
        MAX(last_at) AS last_seen_at
    FROM seen
    GROUP BY service, consumer_version
)

SELECT
    r.service,
    r.consumer_version,
    r.first_seen_at,
    r.last_seen_at,
    CAST(COALESCE(SUM(j.failure_count), 0) AS BIGINT) AS failure_count,
    CAST(COALESCE(SUM(j.success_count), 0) AS BIGINT) AS success_count,
    STRING_AGG(DISTINCT j.brought, ', ' ORDER BY j.brought) AS brought,
    STRING_AGG(DISTINCT j.cured, ', ' ORDER BY j.cured) AS cured,
    STRING_AGG(DISTINCT j.brought_back, ', ' ORDER BY j.brought_back) AS brought_back
FROM versions AS r
LEFT JOIN judged AS j
    ON j.service = r.service AND j.consumer_version = r.consumer_version
GROUP BY r.service, r.consumer_version, r.first_seen_at, r.last_seen_at
ORDER BY r.service, r.first_seen_at, r.consumer_version
