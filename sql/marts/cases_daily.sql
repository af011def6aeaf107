-- Counts of cases, from which groups, types and services are summed up.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per dlq_date (the server's day of the dead letter), group_id, cause_id,
-- service, consumer_name and error_class.
--   case_count                       cases; a reopened case counts once more per reopening
--   first_opened_at, last_opened_at  oldest and newest dlq_timestamp, UTC
--   last_first_attempt_at            newest first attempt, UTC
--   last_resolved_at                 newest resolution, UTC, or null
--   last_resolved_by_person_at       newest resolution by hand or by a redrive that a person
--                  requested, or newest discard of a case that was reopened, UTC, or null
--   last_log_position                position in the log of the latest case; the next columns are
--                  from that case
--   sample_failure_id, parent_id, template, frames
SELECT
    dlq_date,
    group_id,
    cause_id,
    service,
    consumer_name,
    error_class,
    COUNT(*) AS case_count,
    MIN(opened_at) AS first_opened_at,
    MAX(opened_at) AS last_opened_at,
    MAX(first_attempt_at) AS last_first_attempt_at,
    MAX(CASE WHEN cause <> 'discarded' THEN closed_at END) AS last_resolved_at,
    MAX(
        CASE
            WHEN cause IN ('manual', 'manual_redrive') OR (cause = 'discarded' AND status = 'reopened')
                THEN closed_at
        END
    ) AS last_resolved_by_person_at,
    MAX(log_position) AS last_log_position,
    ARG_MAX_NULL(failure_id, log_position) AS sample_failure_id,
    ARG_MAX_NULL(parent_id, log_position) AS parent_id,
    ARG_MAX_NULL(template, log_position) AS template,
    ARG_MAX_NULL(frames, log_position) AS frames
FROM cases
GROUP BY dlq_date, group_id, cause_id, service, consumer_name, error_class
ORDER BY dlq_date, group_id, cause_id, service, consumer_name, error_class
