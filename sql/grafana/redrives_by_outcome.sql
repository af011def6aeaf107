-- Outcomes of the redrives of the time range. PostgreSQL, on `redrives`.
--
-- Grain: one row per state of the outbox.
SELECT
    state,
    COUNT(*) AS redrives
FROM (
    SELECT
        state,
        COALESCE(ended_at, published_at, NOW()) AS changed_at
    FROM dlq.redrives
) AS r
WHERE $__timeFilter(changed_at)
GROUP BY state
ORDER BY redrives DESC, state
