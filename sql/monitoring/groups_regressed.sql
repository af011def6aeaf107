-- Groups that a person resolved and that failed again since. PostgreSQL, on `failed_events`.
--
-- Grain: one row per failure group with an open failure whose first attempt came after the last
-- resolution by a person (by hand, or by a redrive that a person requested). This includes a
-- failure that a person resolved or discarded and that failed again.
--   resolved_at, resolution_notes  of that resolution
--   returned_count  open failures since
--   returned_at     first of them
--   sample_id       the latest of them, for `dlq show`
WITH resolutions AS (
    SELECT DISTINCT ON (group_id) group_id, resolved_at, resolution_notes
    FROM (
        SELECT group_id, resolved_at, resolution_notes
        FROM dlq.failed_events
        WHERE status = 'resolved' AND resolution_cause IN ('manual', 'manual_redrive')
        UNION ALL
        SELECT group_id, last_closed_at, NULL
        FROM dlq.failed_events
        WHERE last_closed_as IN ('manual', 'manual_redrive', 'discarded')
    ) AS closed
    ORDER BY group_id, resolved_at DESC
)

SELECT
    f.group_id,
    MAX(f.error_type) AS error_type,
    STRING_AGG(
        DISTINCT COALESCE(f.consumer_service, f.source_service), ', '
        ORDER BY COALESCE(f.consumer_service, f.source_service)
    ) AS services,
    r.resolved_at,
    r.resolution_notes,
    COUNT(*) AS returned_count,
    MIN(f.dlq_timestamp) AS returned_at,
    (ARRAY_AGG(f.id ORDER BY f.dlq_timestamp DESC, f.id))[1] AS sample_id
FROM dlq.failed_events AS f
INNER JOIN resolutions AS r ON r.group_id = f.group_id
WHERE
    f.status IN ('pending', 'retried', 'parked')
    AND f.first_attempt_at > r.resolved_at
GROUP BY f.group_id, r.resolved_at, r.resolution_notes
ORDER BY returned_count DESC, f.group_id
