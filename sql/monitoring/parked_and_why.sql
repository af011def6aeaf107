-- Parked failures: no redrive takes them until somebody decides. PostgreSQL, on `failures`.
--
-- Grain: one row per service, error_type, redrives tried and note, most failures first.
--   redrive_count  redrives that ended without success
--   why            the note of the parking; without one, the failed redrives
--   sample_id      one of these failures, for `dlq show`
SELECT
    service,
    error_type,
    redrive_count,
    COALESCE(NULLIF(resolution_notes, ''), redrive_count || ' redrives without success') AS why,
    COUNT(*) AS failure_count,
    MIN(opened_at) AS oldest_at,
    MAX(failure_id::text) AS sample_id
FROM dlq.failures
WHERE status = 'parked'
GROUP BY service, error_type, redrive_count, resolution_notes
ORDER BY failure_count DESC, service, error_type
