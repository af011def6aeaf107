-- Tenants that have most of a failure group, and far less of all other failures.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per tenant and group, over the dead letters of the last seven days: a group of
-- at least 20 cases, at least half of them of one tenant, whose share of all failures is at most a
-- fifth of that.
--   tenant_id, group_id, error_class, services (names joined by ', ')
--   failure_count    the tenant's cases in the group
--   open_count       of these pending, retried or parked
--   group_count      all cases of the group
--   share_of_group   failure_count / group_count, 0 to 1
--   share_of_all     the tenant's share of all cases, 0 to 1
--   concentration    share_of_group / share_of_all
WITH recent AS (
    SELECT t.*
    FROM tenants_daily AS t
    CROSS JOIN clock AS n
    WHERE t.dlq_date > CAST(n.now AT TIME ZONE 'UTC' AS DATE) - 7
),

pairs AS (
    SELECT
        tenant_id,
        group_id,
        MIN(error_class) AS error_class,
        STRING_AGG(DISTINCT service, ', ' ORDER BY service) AS services,
        SUM(failure_count) AS failure_count,
        SUM(open_count) AS open_count
    FROM recent
    GROUP BY tenant_id, group_id
),

shares AS (
    SELECT
        *,
        SUM(failure_count) OVER (PARTITION BY group_id) AS group_count,
        CAST(SUM(failure_count) OVER (PARTITION BY tenant_id) AS DOUBLE)
        / SUM(failure_count) OVER () AS share_of_all
    FROM pairs
)

SELECT
    tenant_id,
    group_id,
    error_class,
    services,
    CAST(failure_count AS BIGINT) AS failure_count,
    CAST(open_count AS BIGINT) AS open_count,
    CAST(group_count AS BIGINT) AS group_count,
    CAST(failure_count AS DOUBLE) / group_count AS share_of_group,
    share_of_all,
    CAST(failure_count AS DOUBLE) / group_count / share_of_all AS concentration
FROM shares
WHERE
    tenant_id IS NOT NULL
    AND group_count >= 20
    AND failure_count >= 0.5 * group_count
    AND CAST(failure_count AS DOUBLE) / group_count >= 5 * share_of_all
ORDER BY failure_count DESC, tenant_id, group_id
