-- Failures that wait for a redrive or for its outcome. PostgreSQL, on `failed_events`.
--
-- Grain: one row per service, error_type and status (pending: no redrive is published; retried: one
-- is).
--   failure_count
--   redriven_count      of these, with an earlier failed redrive
--   oldest_at           oldest dlq_timestamp
--   oldest_age_seconds  its age
SELECT
    COALESCE(consumer_service, source_service) AS service,
    error_type,
    status,
    COUNT(*) AS failure_count,
    COUNT(*) FILTER (WHERE redrive_count > 0) AS redriven_count,
    MIN(dlq_timestamp) AS oldest_at,
    ROUND(EXTRACT(EPOCH FROM NOW() - MIN(dlq_timestamp)))::bigint AS oldest_age_seconds
FROM dlq.failed_events
WHERE status IN ('pending', 'retried')
GROUP BY COALESCE(consumer_service, source_service), error_type, status
ORDER BY failure_count DESC, service, error_type, status
