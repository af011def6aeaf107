-- Failures by service over time. PostgreSQL, on `failures`.
--
-- Grain: one row per interval and service.
SELECT
    $__timeGroup(opened_at, $__interval) AS time,
    service AS metric,
    COUNT(*) AS failures
FROM dlq.failures
WHERE $__timeFilter(opened_at)
GROUP BY 1, 2
ORDER BY 1
