-- How long messages of the log have waited for the drain. PostgreSQL; reads `scopes` and `clock`.
--
-- Grain: one row; none if no message waits.
--   value  minutes since the first check of the log that showed more than is drained now
--   since  time of that check; the other columns: docs/alerts.md
SELECT
    p.scope,
    '' AS subject,
    EXTRACT(EPOCH FROM MAX(n.now) - MIN(s.at))::float8 / 60 AS value,
    p.above,
    NULL::bigint AS failure_count,
    MIN(s.at) AS since,
    NULL::text AS sample_id,
    (MAX(s.last_sequence) - COALESCE(MAX(h.last_sequence), 0)) || ' messages wait' AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM dlq.stream_samples AS s
CROSS JOIN clock AS n
INNER JOIN scopes AS p ON p.scope = 'all'
LEFT JOIN (
    SELECT
        c.stream,
        e.created,
        c.last_sequence
    FROM dlq.drain_checkpoints AS c
    INNER JOIN dlq.drain_epochs AS e ON e.epoch = c.epoch
) AS h ON h.stream = s.stream AND h.created = s.created
WHERE
    s.role = 'log'
    AND s.last_sequence > COALESCE(h.last_sequence, 0)
    -- messages that a limit or a purge removed unread are a gap and do not wait
    AND s.created = (
        SELECT latest.created
        FROM (
            SELECT * FROM dlq.stream_samples
            WHERE role = 'log' AND created IS NOT NULL
            ORDER BY at DESC
            LIMIT 1
        ) AS latest
        WHERE latest.first_sequence <= latest.last_sequence
    )
GROUP BY p.scope, p.above
