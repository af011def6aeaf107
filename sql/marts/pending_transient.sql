-- Open temporary failures: the candidates for a redrive.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per group_id, consumer_name, service and error_class with open cases of the
-- transient family (see `error_classes`).
--   group_id, error_class
--   service             the service that failed, else the one that published
--   consumer_name       durable name, null where unknown
--   open_count          pending, retried or parked
--   pending_count       of these, without a running redrive
--   retried_count       of these, with a published redrive
--   parked_count        of these, without further automatic redrives
--   oldest_opened_at    oldest dlq_timestamp of an open case, to the minute, UTC
--   oldest_age_seconds  its age
SELECT
    c.group_id,
    c.error_class,
    c.service,
    c.consumer_name,
    CAST(SUM(c.case_count) AS BIGINT) AS open_count,
    CAST(SUM(CASE WHEN c.status = 'pending' THEN c.case_count ELSE 0 END) AS BIGINT)
        AS pending_count,
    CAST(SUM(CASE WHEN c.status = 'retried' THEN c.case_count ELSE 0 END) AS BIGINT)
        AS retried_count,
    CAST(SUM(CASE WHEN c.status = 'parked' THEN c.case_count ELSE 0 END) AS BIGINT)
        AS parked_count,
    MIN(c.open_since) AS oldest_opened_at,
    DATE_DIFF('second', MIN(c.open_since), MAX(n.now)) AS oldest_age_seconds
FROM statuses_daily AS c
INNER JOIN error_classes AS e ON e.error_class = c.error_class AND e.family = 'transient'
CROSS JOIN clock AS n
WHERE c.open_since IS NOT NULL
GROUP BY c.group_id, c.error_class, c.service, c.consumer_name
ORDER BY open_count DESC, c.group_id, c.service, c.consumer_name
