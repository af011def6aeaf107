-- Findings of the latest run of the flow `doctor` that lose data. PostgreSQL; reads `scopes`.
--
-- Grain: one row; none if the last run is more than a day old.
--   value   findings
--   detail  the first of them; the other columns: docs/alerts.md
SELECT
    p.scope,
    '' AS subject,
    d.loses_count::float8 AS value,
    p.above,
    NULL::bigint AS failure_count,
    d.at AS since,
    NULL::text AS sample_id,
    (
        SELECT STRING_AGG((f.finding ->> 'subject') || ': ' || (f.finding ->> 'sentence'), ' ' ORDER BY f.place)
        FROM JSONB_ARRAY_ELEMENTS(d.findings) WITH ORDINALITY AS f (finding, place)
        WHERE f.place <= 3 AND f.finding ->> 'severity' = 'loses data'
    ) AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM (
    SELECT * FROM dlq.diagnoses
    WHERE at > NOW() - INTERVAL '1 day'
    ORDER BY at DESC LIMIT 1
) AS d
INNER JOIN scopes AS p ON p.scope = 'all'
