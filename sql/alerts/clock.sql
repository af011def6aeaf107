-- The end of the time window of rules about failures. PostgreSQL.
--
-- Grain: one row.
--   now
--   drained_until  time up to which failed_events is complete: the latest check of the log with
--                  nothing left to drain; `now` if there was no recent check.
SELECT
    NOW() AS now,
    COALESCE(
        (
            SELECT MAX(s.at)
            FROM dlq.stream_samples AS s
            INNER JOIN dlq.drain_checkpoints AS c ON c.stream = s.stream
            INNER JOIN dlq.drain_epochs AS e ON e.epoch = c.epoch AND e.created = s.created
            WHERE
                s.role = 'log'
                AND (s.last_sequence <= c.last_sequence OR s.first_sequence > s.last_sequence)
                AND EXISTS (
                    SELECT FROM dlq.stream_samples AS latest
                    WHERE latest.role = 'log' AND latest.at > NOW() - INTERVAL '10 minutes'
                )
        ),
        NOW()
    ) AS drained_until
