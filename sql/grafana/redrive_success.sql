-- Redrives that succeeded, of those of the range that ended either way; null without any.
-- PostgreSQL, on `redrives`.
--
-- Grain: one row.
SELECT AVG((state = 'succeeded')::int)::float8 AS value
FROM dlq.redrives
WHERE state IN ('succeeded', 'failed_again') AND $__timeFilter(ended_at)
