-- Failures by error type, over all time. PostgreSQL, on `failed_events`.
--
-- Grain: one row per error_type.
--   failure_count, open_count  all, and those pending, retried or parked
--   group_count                distinct failure groups
--   first_seen_at, last_seen_at
SELECT
    error_type,
    COUNT(*) AS failure_count,
    COUNT(*) FILTER (WHERE status IN ('pending', 'retried', 'parked')) AS open_count,
    COUNT(DISTINCT group_id) AS group_count,
    MIN(dlq_timestamp) AS first_seen_at,
    MAX(dlq_timestamp) AS last_seen_at
FROM dlq.failed_events
WHERE status <> 'superseded'
GROUP BY error_type
ORDER BY failure_count DESC, error_type
