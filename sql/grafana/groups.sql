-- Failure groups that are not resolved, from the last run of build-marts. PostgreSQL.
--
-- Grain: one row per group, the largest first.
SELECT
    group_id,
    state,
    is_escalating,
    error_class,
    template,
    services,
    failure_count,
    failure_count_24h,
    open_count,
    tenant_count,
    redrive_chance,
    last_seen_at
FROM dlq.mart_failure_groups
WHERE state IN (${state:sqlstring})
ORDER BY failure_count_24h DESC, failure_count DESC
LIMIT 200
