-- Messages that could not be read as dead letters, over time. PostgreSQL, on `failures`.
--
-- Grain: one row per interval.
SELECT
    $__timeGroup(opened_at, $__interval) AS time,
    COUNT(*) AS quarantined
FROM dlq.failures
WHERE parse_error IS NOT NULL AND $__timeFilter(opened_at)
GROUP BY 1
ORDER BY 1
