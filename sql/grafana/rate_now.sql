-- Failures a minute, the mean of the last five. PostgreSQL, on `failures`.
--
-- Grain: one row.
SELECT COUNT(*)::float8 / 5 AS value
FROM dlq.failures
WHERE opened_at > NOW() - INTERVAL '5 minutes'
