-- Failures that need a person. PostgreSQL; reads `scoped_failures`, `clock`, `settings`.
--
-- Grain: one row per critical failure in the window, told of by service.
--   is_told  whether an alert (the monitor's) has named it
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
    -- stored, since a drain may come late, and a clock be wrong; what is old is no news
    AND f.created_at > n.now - r.window_minutes * INTERVAL '1 minute'
    AND f.opened_at > n.now - GREATEST(r.window_minutes, 1440) * INTERVAL '1 minute'
