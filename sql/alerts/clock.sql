-- The time that rules about failures look back from. PostgreSQL.
--
-- Grain: one row.
--   now
--   drained_until  up to when failed_events is known to hold what failed: the latest look at the log
--                  at which nothing was left to drain. `now` where nobody looked of late.
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
