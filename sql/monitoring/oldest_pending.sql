-- The failures that have been open longest. PostgreSQL, on `failed_events`.
--
-- Grain: one row per open failure (pending, retried or parked), oldest first, at most 50.
--   age_seconds    since dlq_timestamp
--   is_overdue     open for more than 24 hours
SELECT
    dlq_timestamp,
    ROUND(EXTRACT(EPOCH FROM NOW() - dlq_timestamp))::bigint AS age_seconds,
    dlq_timestamp < NOW() - INTERVAL '24 hours' AS is_overdue,
    id,
    status,
    redrive_count,
    COALESCE(consumer_service, source_service) AS service,
    error_type,
    LEFT(error_message, 200) AS message
FROM dlq.failed_events
WHERE status IN ('pending', 'retried', 'parked')
ORDER BY dlq_timestamp
LIMIT 50
