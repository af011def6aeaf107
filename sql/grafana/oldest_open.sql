-- Age of the oldest open failure, in seconds; null where none is open. PostgreSQL.
--
-- Grain: one row.
SELECT EXTRACT(EPOCH FROM NOW() - MIN(opened_at))::float8 AS value
FROM dlq.failures
WHERE is_open
