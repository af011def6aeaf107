-- How fast one service uses up its error budget; 1 is exactly what the objective allows.
-- PostgreSQL.
--
-- Grain: one row.
SELECT
    burn_5m AS "5 m",
    burn_30m AS "30 m",
    burn_1h AS "1 h",
    burn_6h AS "6 h",
    burn_3d AS "3 d"
FROM dlq.mart_service_health
WHERE service = '$service'
