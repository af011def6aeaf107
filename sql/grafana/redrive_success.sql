-- Redrives that succeeded, of those of the range that were answered; null without any.
-- PostgreSQL, on `answered_redrives`.
--
-- Grain: one row.
SELECT AVG(has_succeeded::int)::float8 AS value
FROM dlq.answered_redrives
WHERE $__timeFilter(ended_at)
