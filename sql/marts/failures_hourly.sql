-- Failures by hour.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per hour, service and error_class with a case; hours without cases have no row.
--   hour_at        start of the hour of dlq_timestamp, UTC
--   service        the service that failed, else the one that published
--   error_class    last segment of the exception's type
--   failure_count  cases
--   group_count    distinct failure groups
SELECT
    DATE_TRUNC('hour', MIN(minute_at) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS hour_at,
    service,
    error_class,
    CAST(SUM(failure_count) AS BIGINT) AS failure_count,
    COUNT(DISTINCT group_id) AS group_count
FROM failures_minutely
GROUP BY FLOOR(minute_number / 60), service, error_class
ORDER BY hour_at, service, error_class
