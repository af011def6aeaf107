-- Size of the streams, at each check. PostgreSQL, on `stream_samples`.
--
-- Grain: one row per check and stream.
SELECT
    at AS time,
    stream AS metric,
    size_bytes
FROM dlq.stream_samples
WHERE size_bytes IS NOT NULL AND $__timeFilter(at)
ORDER BY at
