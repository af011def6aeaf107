-- Health of every service, from the last run of build-marts. PostgreSQL.
--
-- Grain: one row per service, the lowest score first.
SELECT
    service,
    score,
    alert,
    failure_count_1h,
    failure_count_24h,
    open_count,
    oldest_open_age_seconds,
    failure_rate_24h
FROM dlq.mart_service_health
ORDER BY score, service
