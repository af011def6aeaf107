-- Messages handled by services, if their totals are known.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per hour and service with a sample of its consumers' counters.
--   hour_at             start of the hour of the sample, UTC
--   service
--   handled_count, succeeded_count, retried_count, dead_lettered_count, skipped_count
--                       messages since the previous samples, all consumers of the service
SELECT
    DATE_TRUNC('hour', MIN(published_at) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS hour_at,
    service,
    CAST(SUM(handled) AS BIGINT) AS handled_count,
    CAST(SUM(succeeded) AS BIGINT) AS succeeded_count,
    CAST(SUM(retried) AS BIGINT) AS retried_count,
    CAST(SUM(dead_lettered) AS BIGINT) AS dead_lettered_count,
    CAST(SUM(skipped) AS BIGINT) AS skipped_count
FROM service_traffic
GROUP BY FLOOR(EPOCH(published_at) / 3600), service
ORDER BY hour_at, service
