-- What arrived and could not be read. PostgreSQL; reads `scoped_failures`, `clock`, `settings`.
--
-- Grain: one row per scope with such a message in the window.
--   value   messages
--   detail  where they came from; the other columns: docs/alerts.md
WITH held AS (
    SELECT
        f.scope,
        f.above,
        f.id,
        f.dlq_timestamp,
        f.alert_sent,
        f.service,
        f.error_class
    FROM scoped_failures AS f
    CROSS JOIN clock AS n
    CROSS JOIN settings AS r
    WHERE
        f.parse_error IS NOT NULL
        -- stored, since a drain may come late, and a clock be wrong; what is old is no news
        AND f.created_at > n.now - r.window_minutes * INTERVAL '1 minute'
        AND f.dlq_timestamp > n.now - GREATEST(r.window_minutes, 1440) * INTERVAL '1 minute'
),

parts AS (
    SELECT
        scope,
        service || ' ' || COUNT(*) AS words,
        ROW_NUMBER() OVER (
            PARTITION BY scope
            ORDER BY COUNT(*) DESC, service
        ) AS place
    FROM held
    GROUP BY scope, service
)

SELECT
    h.scope,
    '' AS subject,
    COUNT(*)::float8 AS value,
    h.above,
    COUNT(*) AS failure_count,
    MIN(h.dlq_timestamp) AS since,
    (ARRAY_AGG(h.id::text ORDER BY h.dlq_timestamp DESC, h.id))[1] AS sample_id,
    (
        SELECT STRING_AGG(p.words, '; ' ORDER BY p.place) FROM parts AS p
        WHERE p.place <= 3 AND p.scope = h.scope
    ) AS detail,
    (ARRAY_AGG(h.id::text) FILTER (WHERE NOT h.alert_sent))[1:500] AS unmarked_ids,
    FALSE AS is_told
FROM held AS h
GROUP BY h.scope, h.above
