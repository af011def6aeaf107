-- Messages that could not be read as dead letters, over time. PostgreSQL, on `failed_events`.
--
-- Grain: one row per interval.
SELECT
    $__timeGroup(dlq_timestamp, $__interval) AS time,
    COUNT(*) AS quarantined
FROM dlq.failed_events
WHERE parse_error IS NOT NULL AND $__timeFilter(dlq_timestamp)
GROUP BY 1
ORDER BY 1
