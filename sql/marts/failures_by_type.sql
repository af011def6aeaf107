-- Failures by error type and service.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per error_class and service. Counts cases: a redrive that fails again is not a new
-- failure.
--   error_class     last segment of the exception's type
--   service         the service that failed, else the one that published
--   failure_count   cases
--   group_count     distinct failure groups
--   tenant_count    distinct tenants
--   first_seen_at   oldest dlq_timestamp, UTC
--   last_seen_at    newest dlq_timestamp, UTC
--   open_count      pending, retried or parked
--   resolved_count  resolved, by redrive or by hand
WITH hit AS (
    SELECT error_class, service, COUNT(DISTINCT tenant_id) AS tenant_count
    FROM tenants_daily
    GROUP BY error_class, service
),

standing AS (
    SELECT
        error_class,
        service,
        SUM(CASE WHEN open_since IS NOT NULL THEN case_count ELSE 0 END)
            AS open_count,
        SUM(CASE WHEN status = 'resolved' THEN case_count ELSE 0 END) AS resolved_count
    FROM statuses_daily
    GROUP BY error_class, service
)

SELECT
    d.error_class,
    d.service,
    CAST(SUM(d.case_count) AS BIGINT) AS failure_count,
    COUNT(DISTINCT d.group_id) AS group_count,
    MAX(h.tenant_count) AS tenant_count,
    MIN(d.first_opened_at) AS first_seen_at,
    MAX(d.last_opened_at) AS last_seen_at,
    CAST(MAX(s.open_count) AS BIGINT) AS open_count,
    CAST(MAX(s.resolved_count) AS BIGINT) AS resolved_count
FROM cases_daily AS d
INNER JOIN hit AS h ON h.error_class = d.error_class AND h.service = d.service
INNER JOIN standing AS s ON s.error_class = d.error_class AND s.service = d.service
GROUP BY d.error_class, d.service
ORDER BY failure_count DESC, d.error_class, d.service
