-- Failures of the time range by error type. PostgreSQL, on `failures`.
--
-- Grain: one row per error type, the fifteen most frequent.
SELECT
    error_class AS error_type,
    COUNT(*) AS failures
FROM dlq.failures
WHERE $__timeFilter(opened_at)
GROUP BY 1
ORDER BY failures DESC, error_type
LIMIT 15
