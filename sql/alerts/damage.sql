-- Findings of the last verification that were not repaired. PostgreSQL; reads `scopes`.
--
-- Grain: one row; none before the first verification.
--   value   findings
--   detail  the first of them; the other columns: docs/alerts.md
SELECT
    p.scope,
    '' AS subject,
    v.wrong_count::float8 AS value,
    p.above,
    NULL::bigint AS failure_count,
    v.started_at AS since,
    NULL::text AS sample_id,
    (
        SELECT STRING_AGG(f.finding ->> 'what', ' ' ORDER BY f.place)
        FROM JSONB_ARRAY_ELEMENTS(v.findings) WITH ORDINALITY AS f (finding, place)
        WHERE f.place <= 3 AND NOT (f.finding ->> 'is_repaired')::boolean
    ) AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM (SELECT * FROM dlq.verifications ORDER BY started_at DESC, id DESC LIMIT 1) AS v
INNER JOIN scopes AS p ON p.scope = 'all'
