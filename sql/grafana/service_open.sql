-- Open failures of one service. PostgreSQL.
--
-- Grain: one row.
SELECT COUNT(*) AS value
FROM dlq.failed_events
WHERE status IN ('pending', 'retried', 'parked') AND COALESCE(consumer_service, source_service) = '$service'
