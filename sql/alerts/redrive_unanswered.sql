-- Redrives that were published and got no answer in time. PostgreSQL; reads
-- `scopes`, `clock` and `settings`. A late success removes its redrive from the result.
--
-- Grain: one row; none if every redrive in the window was answered.
--   value   redrives
--   detail  by service; the other columns: docs/alerts.md
SELECT
    p.scope,
    '' AS subject,
    SUM(s.redrive_count)::float8 AS value,
    p.above,
    NULL::bigint AS failure_count,
    MIN(s.since) AS since,
    (ARRAY_AGG(s.sample_id ORDER BY s.until_at DESC))[1] AS sample_id,
    STRING_AGG(s.service || ' ' || s.redrive_count, ', ' ORDER BY s.redrive_count DESC, s.service)
        AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM (
    SELECT
        f.service,
        COUNT(*) AS redrive_count,
        MIN(d.ended_at) AS since,
        MAX(d.ended_at) AS until_at,
        (ARRAY_AGG(d.failure_id::text ORDER BY d.ended_at DESC))[1] AS sample_id
    FROM dlq.redrives AS d
    INNER JOIN dlq.failures AS f ON f.failure_id = d.failure_id
    CROSS JOIN clock AS n
    CROSS JOIN settings AS r
    WHERE
        d.state = 'outcome_unknown'
        AND d.ended_at > n.now - r.window_minutes * INTERVAL '1 minute'
    GROUP BY 1
) AS s
INNER JOIN scopes AS p ON p.scope = 'all'
GROUP BY p.scope, p.above
