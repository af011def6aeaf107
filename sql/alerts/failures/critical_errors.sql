-- Failures that need a person. PostgreSQL; reads `scoped_failures`, `clock`, `settings`.
--
-- Grain: one row per critical failure in the window, reported by service.
--   is_told  whether an alert (of the monitor) has contained it
--   the other columns: counted_failures.sql
SELECT
    f.*,
    f.service AS subject,
    f.error_class AS part,
    1 AS divisor,
    f.alert_sent AS is_told
FROM scoped_failures AS f
CROSS JOIN clock AS n
CROSS JOIN settings AS r
WHERE
    f.error_class = ANY (r.error_types)
    -- by storing time, because a drain may be late and a clock wrong; old failures are left out
    AND f.created_at > n.now - r.window_minutes * INTERVAL '1 minute'
    AND f.opened_at > n.now - GREATEST(r.window_minutes, 1440) * INTERVAL '1 minute'
