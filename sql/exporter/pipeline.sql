-- The state of the platform, for `dlq exporter`. PostgreSQL.
--
-- Grain: one row per metric and label.
--   metric  failures             failures; label: status
--           oldest_open          age in seconds of the oldest open failure, 0 if none is open
--           quarantined          messages that could not be read
--           drained              last sequence that failed_events holds; label: stream
--           gaps                 sequences lost unread
--           redrives             redrives; label: state
--           unfounded            outcomes of redrives that the log does not know; label: kind
--           alerts               alerts that fire; label: severity
--           alert_messages       messages about alerts that no channel has accepted yet
--   label
--   value
SELECT
    'failures' AS metric,
    status AS label,
    COUNT(*)::float8 AS value
FROM dlq.failed_events
GROUP BY status
UNION ALL
SELECT
    'oldest_open',
    '',
    COALESCE(EXTRACT(EPOCH FROM NOW() - MIN(opened_at)), 0)::float8
FROM dlq.failures
WHERE is_open
UNION ALL
SELECT
    'quarantined',
    '',
    COUNT(*)::float8
FROM dlq.failures
WHERE parse_error IS NOT NULL
UNION ALL
SELECT
    'drained',
    stream,
    last_sequence::float8
FROM dlq.drain_checkpoints
UNION ALL
SELECT
    'gaps',
    '',
    COALESCE(SUM(last_sequence - first_sequence + 1), 0)::float8
FROM dlq.stream_gaps
UNION ALL
SELECT
    'redrives',
    state,
    COUNT(*)::float8
FROM dlq.redrives
GROUP BY state
UNION ALL
SELECT
    'unfounded',
    kind,
    COUNT(*)::float8
FROM dlq.unfounded_outcomes
GROUP BY kind
UNION ALL
SELECT
    'alerts',
    s.severity,
    COUNT(a.id)::float8
FROM (VALUES ('critical'), ('warning')) AS s (severity)
LEFT JOIN dlq.alerts AS a ON a.severity = s.severity AND a.state = 'firing'
GROUP BY s.severity
UNION ALL
SELECT
    'alert_messages',
    '',
    COUNT(*)::float8
FROM dlq.alert_messages
WHERE delivered_at IS NULL AND given_up_at IS NULL
