-- The newest failures of one service. PostgreSQL, on `failed_events`.
--
-- Grain: one row per failure, newest first, at most 50.
SELECT
    dlq_timestamp,
    id::text AS failure_id,
    event_type,
    tenant_id,
    error_type,
    LEFT(error_message, 200) AS message,
    status,
    redrive_count
FROM dlq.failed_events
WHERE status <> 'superseded' AND COALESCE(consumer_service, source_service) = '$service'
ORDER BY dlq_timestamp DESC
LIMIT 50
