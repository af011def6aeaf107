-- Groups that a person resolved and that failed again since. PostgreSQL, on `failures` and
-- `failed_events`.
--
-- Grain: one row per failure group with an open failure whose first attempt came after the last
-- resolution by a person (by hand, or by a redrive that a person requested). This includes a
-- failure that a person resolved or discarded and that failed again. Failures of a version that is
-- older than the one that a person said repairs the group (`mart_fixes`) are left out.
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
    STRING_AGG(DISTINCT f.service, ', ' ORDER BY f.service) AS services,
    r.resolved_at,
    r.resolution_notes,
    COUNT(*) AS returned_count,
    MIN(f.opened_at) AS returned_at,
    (ARRAY_AGG(f.failure_id ORDER BY f.opened_at DESC, f.failure_id))[1] AS sample_id
FROM dlq.failures AS f
INNER JOIN resolutions AS r ON r.group_id = f.group_id
INNER JOIN dlq.failed_events AS e ON e.id = f.failure_id
LEFT JOIN dlq.mart_fixes AS x
    ON
        x.group_id = f.group_id
        AND x.service = f.service
        AND x.consumer_version = e.consumer_version
WHERE f.is_open AND f.first_attempt_at > r.resolved_at AND x.is_older IS NOT TRUE
GROUP BY f.group_id, r.resolved_at, r.resolution_notes
ORDER BY returned_count DESC, f.group_id
