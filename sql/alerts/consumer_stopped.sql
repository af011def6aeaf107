-- Consumers with our library that nobody pulls from and whose backlog grows. PostgreSQL;
-- reads `scopes`.
--
-- Grain: one row per such consumer at the latest check.
--   value    waiting events; 0 if their number did not grow
--   subject  <stream>/<durable>
--   since    the first check with this state
--   detail   why; the other columns: docs/alerts.md
SELECT
    s.scope,
    c.consumer AS subject,
    CASE WHEN c.waiting_count > c.least_count THEN c.waiting_count ELSE 0 END::float8 AS value,
    s.above,
    NULL::bigint AS failure_count,
    c.since,
    NULL::text AS sample_id,
    c.service || ': ' || c.reason || '; ' || c.waiting_count || ' events wait' AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM dlq.stopped_consumers AS c
CROSS JOIN LATERAL (
    SELECT
        p.scope,
        p.above
    FROM scopes AS p
    WHERE c.service LIKE p.service AND p.tenant = '%' AND p.owner = '%'
    ORDER BY p.position
    LIMIT 1
) AS s
