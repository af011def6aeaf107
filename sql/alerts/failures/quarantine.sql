-- Messages that could not be read. PostgreSQL; reads `scoped_failures`, `clock`, `settings`.
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
    -- by storing time, because a drain may be late and a clock wrong; old failures are left out
    AND f.created_at > n.now - r.window_minutes * INTERVAL '1 minute'
    AND f.opened_at > n.now - GREATEST(r.window_minutes, 1440) * INTERVAL '1 minute'
