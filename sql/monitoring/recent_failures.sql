-- The newest failures. PostgreSQL, on `failed_events`.
--
-- Grain: one row per failure, newest first, at most 100; later rows of a redrive chain are left
-- out, as everywhere below sql/monitoring.
--   dlq_timestamp  when it was given up
--   service        the service that failed, else the one that published
--   message        first 200 characters
SELECT
    dlq_timestamp,
    id,
    COALESCE(consumer_service, source_service) AS service,
    event_type,
    tenant_id,
    error_type,
    LEFT(error_message, 200) AS message,
    status,
    redrive_count,
    group_id
FROM dlq.failed_events
WHERE status <> 'superseded'
ORDER BY dlq_timestamp DESC
LIMIT 100
