-- Failures a minute, the mean of the last five. PostgreSQL, on `failed_events`.
--
-- Grain: one row.
SELECT COUNT(*)::float8 / 5 AS value
FROM dlq.failed_events
WHERE status <> 'superseded' AND dlq_timestamp > NOW() - INTERVAL '5 minutes'
