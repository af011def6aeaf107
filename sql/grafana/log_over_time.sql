-- How many messages the log holds, at each check. PostgreSQL, on `stream_samples`.
--
-- Grain: one row per check.
SELECT
    at AS time,
    message_count AS messages
FROM dlq.stream_samples
WHERE role = 'log' AND message_count IS NOT NULL AND $__timeFilter(at)
ORDER BY at
