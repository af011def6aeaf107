-- Services with open failures, and their age. PostgreSQL, on `failures`.
--
-- Grain: one row per service with an open failure, the oldest first.
--   open_count, overdue_count  open, and of these for more than 24 hours
--   oldest_at, oldest_age_seconds
--   oldest_id      that failure, for `dlq show`
SELECT
    service,
    COUNT(*) AS open_count,
    COUNT(*) FILTER (WHERE opened_at < NOW() - INTERVAL '24 hours') AS overdue_count,
    MIN(opened_at) AS oldest_at,
    MAX(age_seconds) AS oldest_age_seconds,
    (ARRAY_AGG(failure_id ORDER BY opened_at, failure_id))[1] AS oldest_id
FROM dlq.failures
WHERE is_open
GROUP BY service
ORDER BY oldest_at, service
