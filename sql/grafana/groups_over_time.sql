-- The eight largest groups of the range over time. PostgreSQL, on `failed_events`.
--
-- Grain: one row per interval and group.
SELECT
    $__timeGroup(f.dlq_timestamp, $__interval) AS time,
    LEFT(f.group_id, 8) AS metric,
    COUNT(*) AS failures
FROM dlq.failed_events AS f
INNER JOIN (
    SELECT group_id
    FROM dlq.failed_events
    WHERE status <> 'superseded' AND $__timeFilter(dlq_timestamp)
    GROUP BY group_id
    ORDER BY COUNT(*) DESC, group_id
    LIMIT 8
) AS largest ON largest.group_id = f.group_id
WHERE f.status <> 'superseded' AND $__timeFilter(f.dlq_timestamp)
GROUP BY 1, 2
ORDER BY 1
