-- Failures by minute: the base of all other statistics over time.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per dlq_date, minute, service, error_class and group_id that has a case. Built
-- by dlq_date (the server's day of the dead letter); sum over it, because a service with a wrong
-- clock can spread a minute over two days.
--   minute_at        start of the minute of dlq_timestamp, UTC
--   minute_number    the same in minutes since 1970
--   failure_count    cases
--   first_opened_at  oldest dlq_timestamp in it, UTC
--   open_count       of these pending, retried or parked
--   total_open_since_seconds  when these opened, seconds since 1970, summed, whole seconds
--   cured_count      of these closed by a redrive
--   total_closed_seconds  time from opening to closing, summed over the closed ones, whole seconds
SELECT
    dlq_date,
    DATE_TRUNC('minute', MIN(opened_at)) AS minute_at,
    CAST(FLOOR(EPOCH(opened_at) / 60) AS BIGINT) AS minute_number,
    service,
    error_class,
    group_id,
    COUNT(*) AS failure_count,
    MIN(opened_at) AS first_opened_at,
    COUNT(*) FILTER (WHERE is_open) AS open_count,
    CAST(
        COALESCE(SUM(FLOOR(EPOCH_US(opened_at) / 1e6)) FILTER (WHERE is_open), 0) AS BIGINT
    ) AS total_open_since_seconds,
    COUNT(*) FILTER (WHERE cause IN ('automatic_redrive', 'manual_redrive')) AS cured_count,
    CAST(
        COALESCE(SUM(FLOOR(GREATEST(EPOCH_US(closed_at) - EPOCH_US(opened_at), 0) / 1e6)), 0) AS BIGINT
    ) AS total_closed_seconds
FROM cases
GROUP BY ALL
ORDER BY dlq_date, minute_at, service, error_class, group_id
