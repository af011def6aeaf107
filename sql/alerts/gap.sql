-- What was gone before the drain could read it. PostgreSQL; reads `scopes`, `clock` and `settings`.
--
-- Grain: one row per gap found in the window.
--   value    sequences
--   subject  the epoch and its first sequence; the other columns: docs/alerts.md
SELECT
    p.scope,
    g.epoch || ' from ' || g.first_sequence AS subject,
    (g.last_sequence - g.first_sequence + 1)::float8 AS value,
    p.above,
    NULL::bigint AS failure_count,
    g.found_at AS since,
    NULL::text AS sample_id,
    CASE WHEN g.is_certain THEN 'lost' ELSE 'possibly lost' END || ': sequences '
    || g.first_sequence || ' to ' || g.last_sequence || '; ' || g.reason AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM stream_gaps AS g
CROSS JOIN clock AS n
CROSS JOIN settings AS r
INNER JOIN scopes AS p ON p.scope = 'all'
WHERE g.found_at > n.now - r.window_minutes * INTERVAL '1 minute'
