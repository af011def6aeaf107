-- Messages of the log that wait for the drain, at the latest check. PostgreSQL.
--
-- Grain: one row.
SELECT
    CASE
        WHEN s.first_sequence > s.last_sequence THEN 0  -- purged: a gap, and nothing waits
        ELSE GREATEST(s.last_sequence - COALESCE(c.last_sequence, 0), 0)
    END AS value
FROM (SELECT * FROM dlq.stream_samples WHERE role = 'log' ORDER BY at DESC LIMIT 1) AS s
LEFT JOIN (
    SELECT
        c.stream,
        e.created,
        c.last_sequence
    FROM dlq.drain_checkpoints AS c
    INNER JOIN dlq.drain_epochs AS e ON e.epoch = c.epoch
) AS c ON c.stream = s.stream AND c.created = s.created
