-- Tenants with failures in the last 24 hours. PostgreSQL, on `failures`.
--
-- Grain: one row per tenant, at most 50, the most failures first; failures without a tenant are
-- one row whose tenant_id is null.
--   failure_count, open_count  of the last 24 hours; of these open
--   share          of all failures of the 24 hours, 0 to 1
--   group_count    distinct failure groups
--   services       names in alphabetical order, joined by ', '
SELECT
    tenant_id,
    COUNT(*) AS failure_count,
    COUNT(*) FILTER (WHERE is_open) AS open_count,
    ROUND(COUNT(*) / SUM(COUNT(*)) OVER (), 3) AS share,
    COUNT(DISTINCT group_id) AS group_count,
    STRING_AGG(DISTINCT service, ', ' ORDER BY service) AS services
FROM dlq.failures
WHERE opened_at > NOW() - INTERVAL '24 hours'
GROUP BY tenant_id
ORDER BY failure_count DESC, tenant_id
LIMIT 50
