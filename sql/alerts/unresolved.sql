-- Failures that have been open for too long. PostgreSQL; reads `scoped_failures`, `clock`,
-- `settings`.
--
-- Grain: one row per scope with an open failure that is older than the window.
-- There may be very many, so they are counted before anything is sorted.
--   value   failures
--   since   when the oldest failed
--   detail  the three largest kinds of failure; the other columns: docs/alerts.md
WITH parts AS (
    SELECT
        f.scope,
        f.above,
        COUNT(*) AS failure_count,
        MIN(f.opened_at) AS since,
        f.service || ' ' || f.error_class || ' ' || COUNT(*) AS words,
        ROW_NUMBER() OVER (
            PARTITION BY f.scope
            ORDER BY COUNT(*) DESC, f.service, f.error_class
        ) AS place
    FROM scoped_failures AS f
    CROSS JOIN clock AS n
    CROSS JOIN settings AS r
    WHERE
        f.is_open
        AND f.opened_at < n.now - r.window_minutes * INTERVAL '1 minute'
    GROUP BY f.scope, f.above, f.service, f.error_class
),

together AS (
    SELECT
        scope,
        above,
        SUM(failure_count)::bigint AS failure_count,
        MIN(since) AS since,
        STRING_AGG(words, '; ' ORDER BY place) FILTER (WHERE place <= 3) AS detail
    FROM parts
    GROUP BY scope, above
)

SELECT
    t.scope,
    '' AS subject,
    t.failure_count::float8 AS value,
    t.above,
    t.failure_count,
    t.since,
    (
        SELECT MIN(f.failure_id::text) FROM scoped_failures AS f
        WHERE
            f.scope = t.scope
            AND f.is_open
            AND f.opened_at = t.since
    ) AS sample_id,
    t.detail,
    ARRAY(
        SELECT f.failure_id::text FROM scoped_failures AS f
        CROSS JOIN clock AS n
        CROSS JOIN settings AS r
        WHERE
            f.scope = t.scope
            AND NOT f.alert_sent
            AND f.is_open
            AND f.opened_at < n.now - r.window_minutes * INTERVAL '1 minute'
        LIMIT 500
    ) AS unmarked_ids,
    FALSE AS is_told
FROM together AS t
