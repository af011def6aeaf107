-- Failures by hour of the week, all services. PostgreSQL.
--
-- Grain: one row per hour of the week, Monday 00 to Sunday 23 UTC.
SELECT
    (ARRAY['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'])[hour_of_week / 24 + 1]
    || ' ' || LPAD((hour_of_week % 24)::text, 2, '0') AS hour,
    SUM(failure_count)::bigint AS failures
FROM dlq.mart_hour_of_week
WHERE dimension = 'service'
GROUP BY hour_of_week
ORDER BY hour_of_week
