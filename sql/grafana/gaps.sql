-- Messages that were lost before the drain could read them. PostgreSQL, on `stream_gaps`.
--
-- Grain: one row per gap, newest first, at most 50.
SELECT
    found_at,
    epoch,
    first_sequence,
    last_sequence,
    is_certain,
    reason
FROM dlq.stream_gaps
ORDER BY found_at DESC
LIMIT 50
