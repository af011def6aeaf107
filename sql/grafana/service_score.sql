-- Health score of one service, 0 to 100. PostgreSQL.
--
-- Grain: one row.
SELECT score AS value
FROM dlq.mart_service_health
WHERE service = '$service'
