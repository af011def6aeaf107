-- Share of successful redrives among those of the time range that were answered; null if none.
-- PostgreSQL, on `answered_redrives`.
--
-- Grain: one row.
SELECT AVG(has_succeeded::int)::float8 AS value
FROM dlq.answered_redrives
WHERE $__timeFilter(ended_at)
