-- Services with failures in the last 24 hours. PostgreSQL, on `failed_events`.
--
-- Grain: one row per service with a failure.
--   service        the service that failed, else the one that published
--   failure_count, open_count  of the last 24 hours; of these pending, retried or parked
--   error_types    names in alphabetical order, joined by ', '
--   last_seen_at
SELECT
    COALESCE(consumer_service, source_service) AS service,
    COUNT(*) AS failure_count,
    COUNT(*) FILTER (WHERE status IN ('pending', 'retried', 'parked')) AS open_count,
    STRING_AGG(DISTINCT error_type, ', ' ORDER BY error_type) AS error_types,
    MAX(dlq_timestamp) AS last_seen_at
FROM dlq.failed_events
WHERE status <> 'superseded' AND dlq_timestamp > NOW() - INTERVAL '24 hours'
GROUP BY COALESCE(consumer_service, source_service)
ORDER BY failure_count DESC, service
