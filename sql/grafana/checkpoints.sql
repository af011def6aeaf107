-- The position of the drain. PostgreSQL.
--
-- Grain: one row per stream.
SELECT
    stream,
    epoch,
    last_sequence,
    updated_at
FROM dlq.drain_checkpoints
ORDER BY stream
