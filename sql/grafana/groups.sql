-- Failure groups that are not resolved, from the last run of build-marts, with who owns them now.
-- PostgreSQL.
--
-- Grain: one row per group, the largest first.
SELECT
    g.group_id,
    g.state,
    g.is_escalating,
    g.error_class,
    g.template,
    g.services,
    c.owner,
    COALESCE(c.is_muted, FALSE) AS is_muted,
    c.ticket,
    g.failure_count,
    g.failure_count_24h,
    g.open_count,
    g.tenant_count,
    g.redrive_chance,
    g.last_seen_at
FROM dlq.mart_failure_groups AS g
LEFT JOIN dlq.group_care AS c ON c.group_id = g.group_id
WHERE g.state IN (${state:sqlstring})
ORDER BY g.failure_count_24h DESC, g.failure_count DESC
LIMIT 200
