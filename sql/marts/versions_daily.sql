-- Counts of failures and successes by version, from which `deploys` and the versions of a group are
-- summed up.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per dlq_date (the server's day of the dead letter; of a redrive, that of its root),
-- service, group_id and consumer_version, which is null where unknown.
--   attempt_count       failures and successes
--   failure_count       cases of this version, and redrives that failed again in it
--   success_count       redrives that succeeded in it
--   first_failed_at     oldest dlq_timestamp of the failures, UTC; null if there are none
--   last_failed_at      newest of these
--   first_succeeded_at  oldest success, UTC; null if there are none
--   last_succeeded_at   newest of these
SELECT
    dlq_date,
    service,
    group_id,
    consumer_version,
    COUNT(*) AS attempt_count,
    COUNT(*) FILTER (WHERE NOT is_success) AS failure_count,
    COUNT(*) FILTER (WHERE is_success) AS success_count,
    MIN(ended_at) FILTER (WHERE NOT is_success) AS first_failed_at,
    MAX(ended_at) FILTER (WHERE NOT is_success) AS last_failed_at,
    MIN(ended_at) FILTER (WHERE is_success) AS first_succeeded_at,
    MAX(ended_at) FILTER (WHERE is_success) AS last_succeeded_at
FROM (
    SELECT dlq_date, service, group_id, consumer_version, opened_at AS ended_at, FALSE AS is_success
    FROM cases

    UNION ALL

    SELECT dlq_date, service, group_id, consumer_version, ended_at, has_succeeded AS is_success
    FROM redrives
    WHERE has_succeeded IS NOT NULL
) AS attempts
GROUP BY dlq_date, service, group_id, consumer_version
ORDER BY dlq_date, service, group_id, consumer_version
