-- The eight largest groups of the range over time. PostgreSQL, on `failures`.
--
-- Grain: one row per interval and group.
SELECT
    $__timeGroup(f.opened_at, $__interval) AS time,
    LEFT(f.group_id, 8) AS metric,
    COUNT(*) AS failures
FROM dlq.failures AS f
INNER JOIN (
    SELECT group_id
    FROM dlq.failures
    WHERE $__timeFilter(opened_at)
    GROUP BY group_id
    ORDER BY COUNT(*) DESC, group_id
    LIMIT 8
) AS largest ON largest.group_id = f.group_id
WHERE $__timeFilter(f.opened_at)
GROUP BY 1, 2
ORDER BY 1
