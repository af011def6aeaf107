-- The newest failures. PostgreSQL, on `failures`.
--
-- Grain: one row per failure, newest first, at most 100.
--   opened_at      when it was given up
--   service        the service that failed, else the one that published
--   message        first 200 characters
SELECT
    opened_at,
    failure_id,
    service,
    event_type,
    tenant_id,
    error_type,
    LEFT(message, 200) AS message,
    status,
    redrive_count,
    group_id
FROM dlq.failures
ORDER BY opened_at DESC
LIMIT 100
