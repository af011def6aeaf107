-- What may pass by itself and is still open: the candidates for a redrive.
--
-- Grain: one row per group_id, consumer_name, service and error_class with open cases of the
-- transient family (see `error_classes`). Parameter: $now.
--   group_id, error_class
--   service             the service that failed, else the one that published
--   consumer_name       durable name, null where unknown
--   open_count          pending, retried or parked
--   pending_count       of these, those that nothing is under way for
--   retried_count       a redrive is out
--   parked_count        no more automatic redrive
--   oldest_opened_at    oldest dlq_timestamp of an open case, UTC
--   oldest_age_seconds  its age
SELECT
    c.group_id,
    c.error_class,
    c.service,
    c.consumer_name,
    COUNT(*) AS open_count,
    COUNT(*) FILTER (WHERE c.status = 'pending') AS pending_count,
    COUNT(*) FILTER (WHERE c.status = 'retried') AS retried_count,
    COUNT(*) FILTER (WHERE c.status = 'parked') AS parked_count,
    MIN(c.opened_at) AS oldest_opened_at,
    DATE_DIFF('second', MIN(c.opened_at), CAST($now AS TIMESTAMPTZ)) AS oldest_age_seconds
FROM cases AS c
INNER JOIN error_classes AS e ON e.error_class = c.error_class AND e.family = 'transient'
WHERE c.cause = 'open'
GROUP BY c.group_id, c.error_class, c.service, c.consumer_name
ORDER BY open_count DESC, c.group_id, c.service, c.consumer_name
