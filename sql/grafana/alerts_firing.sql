-- Alerts that fire. PostgreSQL, on `alerts`.
--
-- Grain: one row.
SELECT COUNT(*) AS value
FROM dlq.alerts
WHERE state = 'firing'
