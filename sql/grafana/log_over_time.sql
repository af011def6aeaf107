-- How many messages the log holds, at each look. PostgreSQL, on `stream_samples`.
--
-- Grain: one row per look.
SELECT
    at AS time,
    message_count AS messages
FROM dlq.stream_samples
WHERE role = 'log' AND message_count IS NOT NULL AND $__timeFilter(at)
ORDER BY at
