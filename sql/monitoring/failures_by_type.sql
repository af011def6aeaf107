-- Failures by error type, over all time. PostgreSQL, on `failures`.
--
-- Grain: one row per error_type.
--   failure_count, open_count  all, and those open
--   group_count                distinct failure groups
--   first_seen_at, last_seen_at
SELECT
    error_type,
    COUNT(*) AS failure_count,
    COUNT(*) FILTER (WHERE is_open) AS open_count,
    COUNT(DISTINCT group_id) AS group_count,
    MIN(opened_at) AS first_seen_at,
    MAX(opened_at) AS last_seen_at
FROM dlq.failures
GROUP BY error_type
ORDER BY failure_count DESC, error_type
