-- Age of the oldest open failure, in seconds; null if none is open. PostgreSQL, on `failures`.
--
-- Grain: one row.
SELECT EXTRACT(EPOCH FROM NOW() - MIN(opened_at))::float8 AS value
FROM dlq.failures
WHERE is_open
