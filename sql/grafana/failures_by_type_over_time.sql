-- Failures by error type over time. PostgreSQL, on `failed_events`.
--
-- Grain: one row per interval and error type.
SELECT
    $__timeGroup(dlq_timestamp, $__interval) AS time,
    REGEXP_REPLACE(error_type, '^.*[.]', '') AS metric,
    COUNT(*) AS failures
FROM dlq.failed_events
WHERE status <> 'superseded' AND $__timeFilter(dlq_timestamp)
GROUP BY 1, 2
ORDER BY 1
