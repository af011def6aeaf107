-- Consumers of ours that nobody pulls from, and for which more and more events wait. PostgreSQL;
-- reads `scopes`.
--
-- Grain: one row per consumer that the latest look saw so.
--   value    events that wait; 0 where they are not more than they were
--   subject  <stream>/<durable>
--   since    the first look that saw it so
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
    WHERE c.service LIKE p.service AND p.tenant = '%'
    ORDER BY p.position
    LIMIT 1
) AS s
