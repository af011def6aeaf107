-- Alerts that fire or are pending. PostgreSQL, on `alerts`.
--
-- Grain: one row per alert, the most severe first.
SELECT
    state,
    severity,
    rule,
    subject,
    value,
    above,
    failure_count,
    since,
    detail,
    acked_by
FROM dlq.alerts
WHERE state <> 'resolved'
ORDER BY state, severity, since
