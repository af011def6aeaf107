-- Messages that no redrive cures while others of their group are cured, and messages that fail
-- wherever they are consumed.
--
-- Grain: one row per kind and message (kind redriven_in_vain: per failure). The second kind looks
-- at the dead letters of the last seven days.
--   kind             redriven_in_vain: redriven at least three times, failed each time, while
--                    others of the group succeeded | several_consumers: the same event failed in
--                    more than one consumer
--   failure_id       the failure; of several the latest
--   group_id, error_class, event_type, tenant_id   of that failure
--   original_stream, original_sequence  the event; null where unknown
--   consumer_count   consumers that it failed in
--   redrive_count    redrives that failed again
--   cured_count      others of the group that a redrive cured; null for several_consumers
WITH outcomes AS (
    SELECT
        failure_id,
        group_id,
        COUNT(*) FILTER (WHERE outcome = 'failed_again') AS failed_count,
        COUNT(*) FILTER (WHERE outcome = 'succeeded') AS succeeded_count
    FROM redrives
    GROUP BY failure_id, group_id
),

cured AS (
    SELECT group_id, SUM(succeeded_count) AS cured_count
    FROM outcomes
    GROUP BY group_id
    HAVING SUM(succeeded_count) > 0
),

in_vain AS (
    SELECT o.failure_id, o.failed_count, c.cured_count
    FROM outcomes AS o
    INNER JOIN cured AS c ON c.group_id = o.group_id
    WHERE o.failed_count >= 3 AND o.succeeded_count = 0
),

several AS (
    SELECT
        c.original_stream,
        c.original_sequence,
        COUNT(DISTINCT c.consumer_name) AS consumer_count,
        MAX_BY(c.failure_id, c.log_position) AS failure_id
    FROM cases AS c
    CROSS JOIN clock AS n
    WHERE
        c.dlq_date > CAST(n.now AT TIME ZONE 'UTC' AS DATE) - 7
        AND c.original_stream IS NOT NULL
        AND c.original_sequence IS NOT NULL
    GROUP BY c.original_stream, c.original_sequence
    HAVING MIN(c.consumer_name) < MAX(c.consumer_name)
)

SELECT
    'redriven_in_vain' AS kind,
    v.failure_id,
    c.group_id,
    c.error_class,
    c.event_type,
    c.tenant_id,
    c.original_stream,
    c.original_sequence,
    CAST(1 AS BIGINT) AS consumer_count,
    v.failed_count AS redrive_count,
    CAST(v.cured_count AS BIGINT) AS cured_count
FROM in_vain AS v
INNER JOIN cases AS c ON c.failure_id = v.failure_id

UNION ALL

SELECT
    'several_consumers' AS kind,
    s.failure_id,
    c.group_id,
    c.error_class,
    c.event_type,
    c.tenant_id,
    s.original_stream,
    s.original_sequence,
    s.consumer_count,
    CAST(c.redrive_count AS BIGINT) AS redrive_count,
    CAST(NULL AS BIGINT) AS cured_count
FROM several AS s
INNER JOIN cases AS c ON c.failure_id = s.failure_id
ORDER BY kind, redrive_count DESC, consumer_count DESC, failure_id
