-- Whether the log can be read and written at the latest check. PostgreSQL; reads `scopes`.
--
-- Grain: one row; none if it can, or before the first check.
--   value   1
--   since   the first check since which it cannot
--   detail  who reports it, and why; the other columns: docs/alerts.md
SELECT
    p.scope,
    s.stream AS subject,
    1::float8 AS value,
    p.above,
    NULL::bigint AS failure_count,
    COALESCE(
        (
            SELECT MIN(bad.at) FROM dlq.stream_samples AS bad
            WHERE
                bad.role = 'log'
                AND bad.at > COALESCE(
                    (
                        SELECT MAX(good.at) FROM dlq.stream_samples AS good
                        WHERE good.role = 'log' AND good.problem IS NULL
                    ),
                    '-infinity'
                )
        ),
        s.at
    ) AS since,
    NULL::text AS sample_id,
    s.problem AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM (SELECT * FROM dlq.stream_samples WHERE role = 'log' ORDER BY at DESC LIMIT 1) AS s
INNER JOIN scopes AS p ON p.scope = 'all'
WHERE s.problem IS NOT NULL
