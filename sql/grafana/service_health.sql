-- Health of every service, as build-marts last computed it. PostgreSQL.
--
-- Grain: one row per service, the illest first.
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
