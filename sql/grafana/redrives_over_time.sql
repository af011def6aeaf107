-- Redrives by outcome over time. PostgreSQL, on `redrives`.
--
-- Grain: one row per interval and state.
SELECT
    $__timeGroup(ended_at, $__interval) AS time,
    state AS metric,
    COUNT(*) AS redrives
FROM dlq.redrives
WHERE $__timeFilter(ended_at)
GROUP BY 1, 2
ORDER BY 1
