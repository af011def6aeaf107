-- Failures by tenant.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per dlq_date (the server's day of the dead letter), tenant_id, group_id, service
-- and error_class; tenant_id is null for failures without one.
--   failure_count  cases
--   open_count     of these pending, retried or parked
SELECT
    dlq_date,
    tenant_id,
    group_id,
    service,
    error_class,
    COUNT(*) AS failure_count,
    COUNT(*) FILTER (WHERE is_open) AS open_count
FROM cases
GROUP BY dlq_date, tenant_id, group_id, service, error_class
ORDER BY dlq_date, tenant_id, group_id, service, error_class
