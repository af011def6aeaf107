-- Messages of the log that wait for the drain, as of the latest look. PostgreSQL.
--
-- Grain: one row.
SELECT GREATEST(s.last_sequence - COALESCE(c.last_sequence, 0), 0) AS value
FROM (SELECT * FROM stream_samples WHERE role = 'log' ORDER BY at DESC LIMIT 1) AS s
LEFT JOIN drain_checkpoints AS c ON c.stream = s.stream
