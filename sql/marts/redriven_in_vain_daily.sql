-- The cases that were redriven at least three times and failed each time.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per failure_id and opening.
--   dlq_date          the server's day of the dead letter
--   failure_id, opening, group_id, error_class, event_type, tenant_id
--   original_stream, original_sequence  the event; null where unknown
--   failed_attempts   redrives that failed again
--   case_count        1
WITH outcomes AS (
    SELECT failure_id, opening, COUNT(*) AS failed_attempts
    FROM redrives
    WHERE has_succeeded IS NOT NULL
    GROUP BY failure_id, opening
    HAVING COUNT(*) >= 3 AND NOT BOOL_OR(has_succeeded)
)

SELECT
    c.dlq_date,
    c.failure_id,
    c.opening,
    c.group_id,
    c.error_class,
    c.event_type,
    c.tenant_id,
    c.original_stream,
    c.original_sequence,
    o.failed_attempts,
    CAST(1 AS BIGINT) AS case_count
FROM outcomes AS o
INNER JOIN cases AS c ON c.failure_id = o.failure_id AND c.opening = o.opening
ORDER BY c.dlq_date, c.failure_id, c.opening
