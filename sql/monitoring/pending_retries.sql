-- Failures that wait for a redrive or for its outcome. PostgreSQL, on `failures`.
--
-- Grain: one row per service, error_type and status (pending: no redrive is published; retried: one
-- is).
--   failure_count
--   redriven_count      of these, with an earlier failed redrive
--   oldest_at           oldest opened_at
--   oldest_age_seconds  its age
SELECT
    service,
    error_type,
    status,
    COUNT(*) AS failure_count,
    COUNT(*) FILTER (WHERE redrive_count > 0) AS redriven_count,
    MIN(opened_at) AS oldest_at,
    MAX(age_seconds) AS oldest_age_seconds
FROM dlq.failures
WHERE is_open AND status <> 'parked'
GROUP BY service, error_type, status
ORDER BY failure_count DESC, service, error_type, status
