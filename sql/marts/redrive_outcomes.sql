-- Whether redriving helps.
--
-- Grain: one row per group_id and error_class with at least one redrive; sum the counts for a
-- whole class, never the rates.
--   group_id, error_class
--   case_count            cases that were redriven
--   attempt_count         redrives, by (root failure, attempt)
--   automatic_count       of these, those that nobody asked for
--   succeeded_count       the consumer said so
--   failed_again_count    the consumer dead-lettered it again
--   unroutable_count      no stream takes the subject
--   refused_count         not on the allow-list
--   expired_count         the raw bytes were gone
--   outcome_unknown_count nothing was heard before the deadline
--   waiting_count         published, nothing heard yet
--   success_rate          succeeded / (succeeded + failed again), 0 to 1; null without either
SELECT
    group_id,
    error_class,
    COUNT(DISTINCT failure_id) AS case_count,
    COUNT(*) AS attempt_count,
    COUNT(*) FILTER (WHERE COALESCE(trigger, 'automatic') <> 'manual') AS automatic_count,
    COUNT(*) FILTER (WHERE outcome = 'succeeded') AS succeeded_count,
    COUNT(*) FILTER (WHERE outcome = 'failed_again') AS failed_again_count,
    COUNT(*) FILTER (WHERE outcome = 'unroutable') AS unroutable_count,
    COUNT(*) FILTER (WHERE outcome = 'refused') AS refused_count,
    COUNT(*) FILTER (WHERE outcome = 'expired') AS expired_count,
    COUNT(*) FILTER (WHERE outcome = 'outcome_unknown') AS outcome_unknown_count,
    COUNT(*) FILTER (WHERE outcome = 'waiting') AS waiting_count,
    CAST(COUNT(*) FILTER (WHERE outcome = 'succeeded') AS DOUBLE)
    / NULLIF(COUNT(*) FILTER (WHERE outcome IN ('succeeded', 'failed_again')), 0) AS success_rate
FROM redrives
GROUP BY group_id, error_class
ORDER BY attempt_count DESC, group_id, error_class
