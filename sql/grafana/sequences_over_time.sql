-- How far the log is, at each look. PostgreSQL, on `stream_samples`.
--
-- Grain: one row per look.
SELECT
    at AS time,
    last_sequence - first_sequence + 1 AS kept,
    last_sequence
FROM stream_samples
WHERE role = 'log' AND last_sequence IS NOT NULL AND $__timeFilter(at)
ORDER BY at
