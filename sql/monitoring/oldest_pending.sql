-- The failures that have been open longest. PostgreSQL, on `failures`.
--
-- Grain: one row per open failure, oldest first, at most 50.
--   age_seconds    since opened_at, whole seconds
--   is_overdue     open for more than 24 hours
SELECT
    opened_at,
    age_seconds,
    opened_at < NOW() - INTERVAL '24 hours' AS is_overdue,
    failure_id,
    status,
    redrive_count,
    service,
    error_type,
    LEFT(message, 200) AS message
FROM dlq.failures
WHERE is_open
ORDER BY opened_at
LIMIT 50
