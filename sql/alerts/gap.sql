-- Messages that were lost before the drain could read them. PostgreSQL; reads `scopes`, `clock` and
-- `settings`.
--
-- Grain: one row per epoch, reason and minute of the window in which gaps were found.
--   value    sequences
--   subject  the epoch and the first sequence; the other columns: docs/alerts.md
SELECT
    p.scope,
    g.epoch || ' from ' || MIN(g.first_sequence) AS subject,
    SUM(g.last_sequence - g.first_sequence + 1)::float8 AS value,
    p.above,
    NULL::bigint AS failure_count,
    MIN(g.found_at) AS since,
    NULL::text AS sample_id,
    CASE WHEN g.is_certain THEN 'lost' ELSE 'possibly lost' END || ': '
    || CASE
        WHEN COUNT(*) = 1 THEN 'sequences ' || MIN(g.first_sequence) || ' to '
        ELSE SUM(g.last_sequence - g.first_sequence + 1) || ' messages in ' || COUNT(*)
        || ' runs, sequences ' || MIN(g.first_sequence) || ' to '
    END
    || MAX(g.last_sequence) || '; ' || g.reason AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM dlq.stream_gaps AS g
CROSS JOIN clock AS n
CROSS JOIN settings AS r
INNER JOIN scopes AS p ON p.scope = 'all'
WHERE g.found_at > n.now - r.window_minutes * INTERVAL '1 minute'
GROUP BY p.scope, p.above, g.epoch, g.is_certain, g.reason, DATE_TRUNC('minute', g.found_at)
