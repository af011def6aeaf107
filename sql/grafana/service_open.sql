-- Open failures of one service. PostgreSQL, on `failures`.
--
-- Grain: one row.
SELECT COUNT(*) AS value
FROM dlq.failures
WHERE is_open AND service = '$service'
