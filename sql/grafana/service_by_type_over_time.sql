-- Failures of one service by error type over time. PostgreSQL, on `failures`.
--
-- Grain: one row per interval and error type.
SELECT
    $__timeGroup(opened_at, $__interval) AS time,
    error_class AS metric,
    COUNT(*) AS failures
FROM dlq.failures
WHERE $__timeFilter(opened_at) AND service = '$service'
GROUP BY 1, 2
ORDER BY 1
