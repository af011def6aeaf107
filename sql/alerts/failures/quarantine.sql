-- What arrived and could not be read. PostgreSQL; reads `scoped_failures`, `clock`, `settings`.
--
-- Grain: one row per such message in the window; columns: counted_failures.sql.
SELECT
    f.*,
    '' AS subject,
    f.service AS part,
    1 AS divisor,
    FALSE AS is_told
FROM scoped_failures AS f
CROSS JOIN clock AS n
CROSS JOIN settings AS r
WHERE
    f.parse_error IS NOT NULL
    -- stored, since a drain may come late, and a clock be wrong; what is old is no news
    AND f.created_at > n.now - r.window_minutes * INTERVAL '1 minute'
    AND f.opened_at > n.now - GREATEST(r.window_minutes, 1440) * INTERVAL '1 minute'
