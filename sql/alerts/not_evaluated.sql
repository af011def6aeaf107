-- How long ago the alerts were evaluated. PostgreSQL; reads `scopes` and `clock`.
--
-- Grain: one row, none where they never were.
--   value  minutes; the other columns: docs/alerts.md
SELECT
    p.scope,
    '' AS subject,
    EXTRACT(EPOCH FROM MAX(n.now) - MAX(s.at))::float8 / 60 AS value,
    p.above,
    NULL::bigint AS failure_count,
    MAX(s.at) AS since,
    NULL::text AS sample_id,
    'last at ' || TO_CHAR(MAX(s.at), 'YYYY-MM-DD HH24:MI') AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM stream_samples AS s
CROSS JOIN clock AS n
INNER JOIN scopes AS p ON p.scope = 'all'
WHERE s.role = 'log'
GROUP BY p.scope, p.above
