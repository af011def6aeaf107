-- Results of redrives since midnight UTC. PostgreSQL, on `failed_events`.
--
-- Grain: one row per service and error_type that a redrive of today resolved or failed for.
--   resolved_count      cases resolved by a redrive today
--   failed_again_count  redrives that failed again today, counted by their dead letters
--   success_rate        resolved / (resolved + failed again), 0 to 1
SELECT
    service,
    error_type,
    resolved_count,
    failed_again_count,
    ROUND(resolved_count::numeric / (resolved_count + failed_again_count), 3) AS success_rate
FROM (
    SELECT
        COALESCE(consumer_service, source_service) AS service,
        error_type,
        COUNT(*) FILTER (
            WHERE
                status = 'resolved'
                AND resolution_cause IN ('automatic_redrive', 'manual_redrive')
                AND resolved_at >= DATE_TRUNC('day', NOW(), 'UTC')
        ) AS resolved_count,
        COUNT(*) FILTER (
            WHERE
                root_failure_id IS NOT NULL
                AND dlq_timestamp >= DATE_TRUNC('day', NOW(), 'UTC')
        ) AS failed_again_count
    FROM dlq.failed_events
    WHERE
        resolved_at >= DATE_TRUNC('day', NOW(), 'UTC')
        OR dlq_timestamp >= DATE_TRUNC('day', NOW(), 'UTC')
    GROUP BY COALESCE(consumer_service, source_service), error_type
) AS today
WHERE resolved_count + failed_again_count > 0
ORDER BY resolved_count + failed_again_count DESC, service, error_type
