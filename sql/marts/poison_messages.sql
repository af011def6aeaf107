-- Messages whose redrives all fail while others of their group succeed, and messages that fail in
-- several consumers.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per kind and message (kind redriven_in_vain: per failure). The second kind looks
-- at the dead letters of the last seven days, without those of redrives.
--   kind             redriven_in_vain: redriven at least three times, failed each time, while
--                    others of the group succeeded | several_consumers: the same event failed in
--                    more than one consumer
--   failure_id       the failure, or the latest of several
--   group_id, error_class, event_type, tenant_id   of that failure
--   original_stream, original_sequence  the event; null where unknown
--   consumer_count   consumers that it failed in
--   redrive_count    redrives that failed again; null for several_consumers
--   cured_count      successful redrives of others of the group; null for several_consumers
WITH cured AS (
    SELECT group_id, CAST(SUM(attempt_count) AS BIGINT) AS cured_count
    FROM redrives_daily
    WHERE has_succeeded
    GROUP BY group_id
),

-- First find the few by three columns, then read all their columns.
struck AS (
    SELECT d.original_stream, d.original_sequence
    FROM dead_letters AS d
    CROSS JOIN clock AS n
    WHERE
        d.dlq_date > CAST(n.now AT TIME ZONE 'UTC' AS DATE) - 7
        AND d.root_failure_id IS NULL
        AND d.original_stream IS NOT NULL
        AND d.original_sequence IS NOT NULL
    GROUP BY d.original_stream, d.original_sequence
    HAVING MIN(d.consumer_name) < MAX(d.consumer_name)
),

several AS (
    SELECT
        d.original_stream,
        d.original_sequence,
        COUNT(DISTINCT d.consumer_name) AS consumer_count,
        ARG_MAX_NULL(d.failure_id, ROW(d.published_at, d.dlq_sequence)) AS failure_id,
        ARG_MAX_NULL(d.group_id, ROW(d.published_at, d.dlq_sequence)) AS group_id,
        ARG_MAX_NULL(d.error_class, ROW(d.published_at, d.dlq_sequence)) AS error_class,
        ARG_MAX_NULL(d.event_type, ROW(d.published_at, d.dlq_sequence)) AS event_type,
        ARG_MAX_NULL(d.tenant_id, ROW(d.published_at, d.dlq_sequence)) AS tenant_id
    FROM dead_letters AS d
    INNER JOIN struck AS s
        ON s.original_sequence = d.original_sequence AND s.original_stream = d.original_stream
    CROSS JOIN clock AS n
    WHERE
        d.dlq_date > CAST(n.now AT TIME ZONE 'UTC' AS DATE) - 7
        AND d.root_failure_id IS NULL
    GROUP BY d.original_stream, d.original_sequence
)

SELECT
    'redriven_in_vain' AS kind,
    v.failure_id,
    v.group_id,
    v.error_class,
    v.event_type,
    v.tenant_id,
    v.original_stream,
    v.original_sequence,
    CAST(1 AS BIGINT) AS consumer_count,
    v.failed_attempts AS redrive_count,
    c.cured_count
FROM redriven_in_vain_daily AS v
INNER JOIN cured AS c ON c.group_id = v.group_id

UNION ALL

SELECT
    'several_consumers' AS kind,
    failure_id,
    group_id,
    error_class,
    event_type,
    tenant_id,
    original_stream,
    original_sequence,
    consumer_count,
    CAST(NULL AS BIGINT) AS redrive_count,
    CAST(NULL AS BIGINT) AS cured_count
FROM several
ORDER BY kind, redrive_count DESC, consumer_count DESC, failure_id
