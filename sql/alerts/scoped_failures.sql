-- Failures with the part of the rule in which each one counts; not those of muted groups.
-- PostgreSQL; reads `scopes`.
--
-- Grain: one row per failure whose group is not muted.
--   scope, above  name and threshold of the first part of the rule that matches
--   owner         who owns its group; null if nobody does
--   the rest      as in `failures`
SELECT
    s.scope,
    s.above,
    f.failure_id,
    f.opened_at,
    f.created_at,
    f.is_open,
    f.alert_sent,
    f.parse_error,
    f.original_stream,
    f.consumer_name,
    f.service,
    f.error_class,
    c.owner
FROM dlq.failures AS f
LEFT JOIN dlq.group_care AS c ON c.group_id = f.group_id
CROSS JOIN LATERAL (
    SELECT
        p.scope,
        p.above
    FROM scopes AS p
    WHERE
        f.service LIKE p.service
        AND COALESCE(f.tenant_id, '') LIKE p.tenant
        AND COALESCE(c.owner, '') LIKE p.owner
    ORDER BY p.position
    LIMIT 1
) AS s
WHERE c.is_muted IS NOT TRUE
