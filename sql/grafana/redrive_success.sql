-- Share of successful redrives among those of the time range that succeeded or failed; null if
-- none. PostgreSQL, on `redrives`.
--
-- Grain: one row.
SELECT AVG((state = 'succeeded')::int)::float8 AS value
FROM dlq.redrives
WHERE state IN ('succeeded', 'failed_again') AND $__timeFilter(ended_at)
