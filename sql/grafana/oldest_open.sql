-- Age of the oldest open failure, in seconds; null if none is open. PostgreSQL.
--
-- Grain: one row.
SELECT EXTRACT(EPOCH FROM NOW() - MIN(dlq_timestamp))::float8 AS value
FROM dlq.failed_events
WHERE status IN ('pending', 'retried', 'parked')
