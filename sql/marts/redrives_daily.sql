-- Counts of redrives, from which outcomes and rates are summed up.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per dlq_date (the server's day of the root failure's dead letter), group_id,
-- error_class, outcome and ended_minute.
--   outcome, has_succeeded  as in `redrives`
--   ended_minute     time of the outcome, in minutes since 1970; null while waiting
--   attempt_count    redrives
--   case_count       of these, the first of an opening; their sum is the number of cases
--   automatic_count  of these, automatic ones
--   out_count        of these, published, or known to have ended in a handler
SELECT
    dlq_date,
    group_id,
    error_class,
    outcome,
    has_succeeded,
    CAST(FLOOR(EPOCH(ended_at) / 60) AS BIGINT) AS ended_minute,
    COUNT(*) AS attempt_count,
    COUNT(*) FILTER (WHERE attempt = first_attempt) AS case_count,
    COUNT(*) FILTER (WHERE COALESCE(trigger, 'automatic') <> 'manual') AS automatic_count,
    COUNT(*) FILTER (WHERE published_at IS NOT NULL OR has_succeeded IS NOT NULL)
        AS out_count
FROM (
    SELECT *, MIN(attempt) OVER (PARTITION BY failure_id, opening) AS first_attempt FROM redrives
) AS numbered
GROUP BY ALL
ORDER BY dlq_date, group_id, error_class, outcome, ended_minute
