-- Counts the failures that a rule of `failures/` finds. PostgreSQL; reads its rows as `held`: rows
-- of `scoped_failures` with the alert's subject (`subject`), a name for the detail (`part`), a
-- divisor of the count (`divisor`), and whether an alert has already contained them (`is_told`).
--
-- Grain: one row per scope and subject with a failure.
--   value   failures, divided
--   detail  the three largest parts; the other columns: docs/alerts.md
WITH parts AS (
    SELECT
        scope,
        subject,
        part || ' ' || COUNT(*) AS words,
        ROW_NUMBER() OVER (
            PARTITION BY scope, subject
            ORDER BY COUNT(*) DESC, part
        ) AS place
    FROM held
    GROUP BY scope, subject, part
)

SELECT
    h.scope,
    h.subject,
    COUNT(*) / h.divisor::float8 AS value,
    h.above,
    COUNT(*) AS failure_count,
    MIN(h.opened_at) AS since,
    (ARRAY_AGG(h.failure_id::text ORDER BY h.opened_at DESC, h.failure_id))[1] AS sample_id,
    (
        SELECT STRING_AGG(p.words, '; ' ORDER BY p.place) FROM parts AS p
        WHERE p.place <= 3 AND p.scope = h.scope AND p.subject = h.subject
    ) AS detail,
    (ARRAY_AGG(h.failure_id::text) FILTER (WHERE NOT h.alert_sent))[1:500] AS unmarked_ids,
    BOOL_AND(h.is_told) AS is_told
FROM held AS h
GROUP BY h.scope, h.above, h.subject, h.divisor
