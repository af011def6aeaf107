-- Open failures. PostgreSQL, on `failed_events`.
--
-- Grain: one row.
SELECT COUNT(*) AS value
FROM dlq.failed_events
WHERE status IN ('pending', 'retried', 'parked')
