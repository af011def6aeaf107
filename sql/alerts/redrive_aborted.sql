-- Redrives that stopped a group because nothing, or too little, succeeded. PostgreSQL; reads
-- `scopes`, `clock` and `settings`.
--
-- Grain: one row; none if no batch was aborted in the window.
--   value   batches
--   detail  why, of the latest; the other columns: docs/alerts.md
SELECT
    p.scope,
    '' AS subject,
    COUNT(*)::float8 AS value,
    p.above,
    NULL::bigint AS failure_count,
    MIN(b.ended_at) AS since,
    NULL::text AS sample_id,
    (ARRAY_AGG('group ' || b.state_reason ORDER BY b.ended_at DESC))[1] AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM dlq.redrive_batches AS b
CROSS JOIN clock AS n
CROSS JOIN settings AS r
INNER JOIN scopes AS p ON p.scope = 'all'
WHERE b.state = 'aborted' AND b.ended_at > n.now - r.window_minutes * INTERVAL '1 minute'
GROUP BY p.scope, p.above
