-- Counts of cases by status.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per dlq_date (the server's day of the dead letter), group_id, service,
-- consumer_name, error_class, status and open_since.
--   status      pending | retried | parked | resolved | discarded | reopened
--   open_since  while open: the minute of dlq_timestamp, UTC; else null
--   case_count  cases
SELECT
    dlq_date,
    group_id,
    service,
    consumer_name,
    error_class,
    status,
    CASE WHEN is_open THEN DATE_TRUNC('minute', opened_at) END AS open_since,
    COUNT(*) AS case_count
FROM cases
GROUP BY ALL
ORDER BY dlq_date, group_id, service, consumer_name, error_class, status, open_since
