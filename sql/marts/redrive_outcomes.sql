-- Results of redrives.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per group_id and error_class with at least one redrive; sum the counts for a
-- whole class, never the rates.
--   group_id, error_class
--   case_count            cases that were redriven
--   attempt_count         redrives, by (root failure, attempt)
--   automatic_count       of these, automatic ones
--   succeeded_count       the consumer reported success
--   failed_again_count    the consumer dead-lettered it again
--   unroutable_count      no stream captures the subject
--   refused_count         not on the allow-list
--   expired_count         the raw bytes no longer existed
--   too_late_count        the event was too old
--   outcome_unknown_count no answer before the deadline
--   waiting_count         published, no answer yet
--   success_rate          succeeded / (succeeded + failed again), 0 to 1; null without either
SELECT
    group_id,
    error_class,
    CAST(SUM(case_count) AS BIGINT) AS case_count,
    CAST(SUM(attempt_count) AS BIGINT) AS attempt_count,
    CAST(SUM(automatic_count) AS BIGINT) AS automatic_count,
    CAST(SUM(CASE WHEN outcome = 'succeeded' THEN attempt_count ELSE 0 END) AS BIGINT)
        AS succeeded_count,
    CAST(SUM(CASE WHEN outcome = 'failed_again' THEN attempt_count ELSE 0 END) AS BIGINT)
        AS failed_again_count,
    CAST(SUM(CASE WHEN outcome = 'unroutable' THEN attempt_count ELSE 0 END) AS BIGINT)
        AS unroutable_count,
    CAST(SUM(CASE WHEN outcome = 'refused' THEN attempt_count ELSE 0 END) AS BIGINT)
        AS refused_count,
    CAST(SUM(CASE WHEN outcome = 'expired' THEN attempt_count ELSE 0 END) AS BIGINT)
        AS expired_count,
    CAST(SUM(CASE WHEN outcome = 'too_late' THEN attempt_count ELSE 0 END) AS BIGINT)
        AS too_late_count,
    CAST(SUM(CASE WHEN outcome = 'outcome_unknown' THEN attempt_count ELSE 0 END) AS BIGINT)
        AS outcome_unknown_count,
    CAST(SUM(CASE WHEN outcome = 'waiting' THEN attempt_count ELSE 0 END) AS BIGINT)
        AS waiting_count,
    CAST(SUM(CASE WHEN has_succeeded THEN attempt_count ELSE 0 END) AS DOUBLE)
    / SUM(CASE WHEN has_succeeded IS NOT NULL THEN attempt_count END) AS success_rate
FROM redrives_daily
GROUP BY group_id, error_class
ORDER BY attempt_count DESC, group_id, error_class
