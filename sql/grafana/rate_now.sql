-- Failures per minute, average of the last five minutes. PostgreSQL, on `failures`.
--
-- Grain: one row.
SELECT COUNT(*)::float8 / 5 AS value
FROM dlq.failures
WHERE opened_at > NOW() - INTERVAL '5 minutes'
