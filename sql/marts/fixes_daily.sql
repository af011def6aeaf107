-- Decisions that a version repairs a group (`dlq resolve --in-version`), from which `fixes` is made.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per dlq_date (the server's day of the dead letter), service, group_id and
-- resolved_in_version.
--   resolved_in_version  the version that a person gave
--   case_count           cases that were decided
--   last_resolved_at     newest of these decisions, UTC
SELECT
    dlq_date,
    service,
    group_id,
    resolved_in_version,
    COUNT(*) AS case_count,
    MAX(happened_at) AS last_resolved_at
FROM (
    -- A case that was reopened has several openings: the decision is about the one before it.
    SELECT
        l.failure_id,
        l.log_position,
        l.resolved_in_version,
        l.happened_at,
        ARG_MAX_NULL(c.dlq_date, c.log_position) AS dlq_date,
        ARG_MAX_NULL(c.service, c.log_position) AS service,
        ARG_MAX_NULL(c.group_id, c.log_position) AS group_id
    FROM case_log AS l
    INNER JOIN cases AS c ON c.failure_id = l.failure_id AND c.log_position < l.log_position
    WHERE l.kind = 'triage.resolved' AND l.resolved_in_version IS NOT NULL
    GROUP BY l.failure_id, l.log_position, l.resolved_in_version, l.happened_at
) AS decisions
GROUP BY dlq_date, service, group_id, resolved_in_version
ORDER BY dlq_date, service, group_id, resolved_in_version
