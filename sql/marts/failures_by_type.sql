-- Which errors, and in which services.
--
-- Grain: one row per error_class and service. Counts cases: a redrive that fails again is no
-- new failure.
--   error_class     last segment of the exception's type
--   service         the service that failed, else the one that published
--   failure_count   cases
--   group_count     distinct failure groups
--   tenant_count    distinct tenants
--   first_seen_at   oldest dlq_timestamp, UTC
--   last_seen_at    newest dlq_timestamp, UTC
--   open_count      pending, retried or parked
--   resolved_count  resolved, by redrive or by hand
SELECT
    error_class,
    service,
    COUNT(*) AS failure_count,
    COUNT(DISTINCT group_id) AS group_count,
    COUNT(DISTINCT tenant_id) AS tenant_count,
    MIN(opened_at) AS first_seen_at,
    MAX(opened_at) AS last_seen_at,
    COUNT(*) FILTER (WHERE cause = 'open') AS open_count,
    COUNT(*) FILTER (WHERE status = 'resolved') AS resolved_count
FROM cases
GROUP BY error_class, service
ORDER BY failure_count DESC, error_class, service
