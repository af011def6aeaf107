-- Failures of the time range by error type. PostgreSQL, on `failed_events`.
--
-- Grain: one row per error type, the fifteen most frequent.
SELECT
    REGEXP_REPLACE(error_type, '^.*[.]', '') AS error_type,
    COUNT(*) AS failures
FROM dlq.failed_events
WHERE status <> 'superseded' AND $__timeFilter(dlq_timestamp)
GROUP BY 1
ORDER BY failures DESC, error_type
LIMIT 15
