-- How long ago the alerts were evaluated. PostgreSQL; reads `scopes` and `clock`.
--
-- Grain: one row; none before the first drain and evaluation.
--   value  minutes; since the first drain if there was no evaluation; the other columns:
--          docs/alerts.md
SELECT
    p.scope,
    '' AS subject,
    EXTRACT(EPOCH FROM n.now - COALESCE(l.looked_at, l.drained_at))::float8 / 60 AS value,
    p.above,
    NULL::bigint AS failure_count,
    COALESCE(l.looked_at, l.drained_at) AS since,
    NULL::text AS sample_id,
    COALESCE('last at ' || TO_CHAR(l.looked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC', 'never')
    AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM (
    SELECT
        (SELECT MAX(s.at) FROM dlq.stream_samples AS s WHERE s.role = 'log') AS looked_at,
        (SELECT MIN(e.started_at) FROM dlq.drain_epochs AS e) AS drained_at
) AS l
CROSS JOIN clock AS n
INNER JOIN scopes AS p ON p.scope = 'all'
WHERE COALESCE(l.looked_at, l.drained_at) IS NOT NULL
