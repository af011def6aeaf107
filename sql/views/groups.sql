-- The current groups; the mart `failure_groups` has more columns.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per group_id.
--   parent_id, cause_id, error_class, template, frames  of the group's latest case
--   failure_count   cases; a reopened case counts once more per reopening
--   open_count      pending, retried or parked
--   first_seen_at   when its first case opened, UTC
--   last_seen_at    when its latest case opened, UTC
--   tenant_count    distinct tenants
SELECT
    group_id,
    ARG_MAX_NULL(parent_id, log_position) AS parent_id,
    ARG_MAX_NULL(cause_id, log_position) AS cause_id,
    ARG_MAX_NULL(error_class, log_position) AS error_class,
    ARG_MAX_NULL(template, log_position) AS template,
    ARG_MAX_NULL(frames, log_position) AS frames,
    COUNT(*) AS failure_count,
    SUM(CASE WHEN is_open THEN 1 ELSE 0 END) AS open_count,
    MIN(opened_at) AS first_seen_at,
    MAX(opened_at) AS last_seen_at,
    COUNT(DISTINCT tenant_id) AS tenant_count
FROM cases
GROUP BY group_id
