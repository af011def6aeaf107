-- How full the log is, at the latest check. PostgreSQL; reads `scopes`.
--
-- Grain: one row; none if it has no limit, or before the first check.
--   value   used share of the nearer limit, 0 to 1
--   detail  both, where they are set; the other columns: docs/alerts.md
SELECT
    p.scope,
    s.stream AS subject,
    GREATEST(
        s.message_count::float8 / NULLIF(s.max_messages, 0),
        s.size_bytes::float8 / NULLIF(s.max_bytes, 0)
    ) AS value,
    p.above,
    NULL::bigint AS failure_count,
    s.at AS since,
    NULL::text AS sample_id,
    CONCAT_WS(
        '; ',
        s.message_count || ' of ' || s.max_messages || ' messages',
        s.size_bytes || ' of ' || s.max_bytes || ' bytes'
    ) AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM (SELECT * FROM dlq.stream_samples WHERE role = 'log' ORDER BY at DESC LIMIT 1) AS s
INNER JOIN scopes AS p ON p.scope = 'all'
WHERE s.max_messages IS NOT NULL OR s.max_bytes IS NOT NULL
