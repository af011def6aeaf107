-- Results of redrives by group, from the last run of build-marts. PostgreSQL.
--
-- Grain: one row per group, the most redriven first.
SELECT
    group_id,
    error_class,
    case_count,
    attempt_count,
    succeeded_count,
    failed_again_count,
    outcome_unknown_count,
    success_rate
FROM dlq.mart_redrive_outcomes
ORDER BY attempt_count DESC, group_id
LIMIT 100
