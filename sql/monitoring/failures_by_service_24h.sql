-- Services with failures in the last 24 hours. PostgreSQL, on `failures`.
--
-- Grain: one row per service with a failure.
--   service        the service that failed, else the one that published
--   failure_count, open_count  of the last 24 hours; of these open
--   error_types    names in alphabetical order, joined by ', '
--   last_seen_at
SELECT
    service,
    COUNT(*) AS failure_count,
    COUNT(*) FILTER (WHERE is_open) AS open_count,
    STRING_AGG(DISTINCT error_type, ', ' ORDER BY error_type) AS error_types,
    MAX(opened_at) AS last_seen_at
FROM dlq.failures
WHERE opened_at > NOW() - INTERVAL '24 hours'
GROUP BY service
ORDER BY failure_count DESC, service
