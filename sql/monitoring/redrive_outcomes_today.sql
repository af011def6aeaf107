-- Results of redrives since midnight UTC. PostgreSQL, on `answered_redrives` and `failures`.
--
-- Grain: one row per service and error_type with a redrive that was answered today.
--   succeeded_count     redrives that the consumer handled
--   failed_again_count  redrives that failed again
--   success_rate        succeeded / (succeeded + failed again), 0 to 1
SELECT
    f.service,
    f.error_type,
    COUNT(*) FILTER (WHERE r.has_succeeded) AS succeeded_count,
    COUNT(*) FILTER (WHERE NOT r.has_succeeded) AS failed_again_count,
    ROUND(AVG(r.has_succeeded::int), 3) AS success_rate
FROM dlq.answered_redrives AS r
INNER JOIN dlq.failures AS f ON f.failure_id = r.failure_id
WHERE r.ended_at >= DATE_TRUNC('day', NOW(), 'UTC')
GROUP BY f.service, f.error_type
ORDER BY COUNT(*) DESC, f.service, f.error_type
