-- The newest failures of one service. PostgreSQL, on `failures`.
--
-- Grain: one row per failure, newest first, at most 50.
SELECT
    opened_at,
    failure_id::text AS failure_id,
    event_type,
    tenant_id,
    error_type,
    LEFT(message, 200) AS message,
    status,
    redrive_count
FROM dlq.failures
WHERE service = '$service'
ORDER BY opened_at DESC
LIMIT 50
