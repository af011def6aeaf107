-- Failures a minute, now. PostgreSQL; reads `scoped_failures`, `clock`, `settings`. The alert, the
-- exporter's dlq_rate_per_minute and Grafana's panel all show its value. The mart `metrics` has the
-- mean of longer windows, from the lake.
--
-- Grain: one row per failure in the window, which ends at the position of the drain.
--   divisor  the minutes of the window, so that the value is failures a minute
--   the other columns: counted_failures.sql
SELECT
    f.*,
    '' AS subject,
    f.service || ' ' || f.error_class AS part,
    r.window_minutes AS divisor,
    FALSE AS is_told
FROM scoped_failures AS f
CROSS JOIN clock AS n
CROSS JOIN settings AS r
WHERE
    f.opened_at > n.drained_until - r.window_minutes * INTERVAL '1 minute'
    AND f.opened_at <= n.drained_until
