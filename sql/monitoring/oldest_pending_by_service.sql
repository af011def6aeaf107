-- Services with open failures, and their age. PostgreSQL, on `failed_events`.
--
-- Grain: one row per service with an open failure (pending, retried or parked), the oldest first.
--   open_count, overdue_count  open, and of these for more than 24 hours
--   oldest_at, oldest_age_seconds
--   oldest_id      that failure, for `dlq show`
SELECT
    COALESCE(consumer_service, source_service) AS service,
    COUNT(*) AS open_count,
    COUNT(*) FILTER (WHERE dlq_timestamp < NOW() - INTERVAL '24 hours') AS overdue_count,
    MIN(dlq_timestamp) AS oldest_at,
    ROUND(EXTRACT(EPOCH FROM NOW() - MIN(dlq_timestamp)))::bigint AS oldest_age_seconds,
    (ARRAY_AGG(id ORDER BY dlq_timestamp, id))[1] AS oldest_id
FROM dlq.failed_events
WHERE status IN ('pending', 'retried', 'parked')
GROUP BY COALESCE(consumer_service, source_service)
ORDER BY oldest_at, service
