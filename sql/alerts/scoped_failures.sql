-- Failures with the part of the rule in which each one counts. PostgreSQL; reads `scopes`.
--
-- Grain: one row per failure.
--   scope, above  name and threshold of the first part of the rule that matches
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
    f.error_class
FROM dlq.failures AS f
CROSS JOIN LATERAL (
    SELECT
        p.scope,
        p.above
    FROM scopes AS p
    WHERE
        f.service LIKE p.service
        AND COALESCE(f.tenant_id, '') LIKE p.tenant
    ORDER BY p.position
    LIMIT 1
) AS s
