-- Incidents as annotations: periods in every panel over time. PostgreSQL, on `mart_incidents`.
--
-- Grain: one row per incident that was in the shown time.
SELECT
    from_at AS time,
    COALESCE(until_at, NOW()) AS timeend,
    'Incident ' || incident_id || ': ' || services || '; ' || failure_count || ' failures in '
    || group_count || ' groups, ' || open_count || ' open' AS text,
    CASE WHEN until_at IS NULL THEN 'lasts' ELSE 'over' END AS tags
FROM dlq.mart_incidents
WHERE from_at <= $__timeTo() AND COALESCE(until_at, NOW()) >= $__timeFrom()
ORDER BY 1
