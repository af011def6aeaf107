-- How one service handled its messages, by hour, if its totals are known. PostgreSQL.
--
-- Grain: one row per hour.
SELECT
    hour_at AS time,
    succeeded_count AS succeeded,
    retried_count AS retried,
    dead_lettered_count AS dead_lettered
FROM dlq.mart_service_traffic_hourly
WHERE service = '$service' AND $__timeFilter(hour_at)
ORDER BY hour_at
