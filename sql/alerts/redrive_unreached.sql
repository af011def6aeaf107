-- Pending failures whose redrive no consumer would get. PostgreSQL; reads `scopes`.
--
-- Grain: one row per such consumer at the latest check.
--   value    failures; null if unknown
--   subject  <stream>/<durable>
--   since    the first check with this state
--   detail   why; the other columns: docs/alerts.md
SELECT
    p.scope,
    u.consumer AS subject,
    CASE WHEN BOOL_OR(u.is_known) THEN COUNT(*) FILTER (WHERE u.is_known) END::float8 AS value,
    p.above,
    COUNT(*) AS failure_count,
    MIN(u.since) AS since,
    (ARRAY_AGG(f.id::text ORDER BY u.is_known DESC, f.dlq_timestamp DESC, f.id))[1] AS sample_id,
    STRING_AGG(DISTINCT u.reason, '; ') AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM dlq.unreached_consumers AS u
INNER JOIN dlq.failed_events AS f
    ON
        f.status = 'pending'
        AND f.original_subject = u.subject
        AND COALESCE(
            f.handed_to, NULLIF(f.original_stream, '') || '/' || NULLIF(f.consumer_name, '')
        ) = u.consumer
INNER JOIN scopes AS p ON p.scope = 'all'
GROUP BY p.scope, p.above, u.consumer
