-- Consumers whose code may be the cause: many messages fail in one of them, for one permanent
-- reason.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per consumer (original_stream, consumer_name) and group_id with at least 20 such
-- messages among the dead letters of the last seven days, without those of redrives. Not counted
-- are messages that failed in other consumers too (`poison_messages`: the message is the cause),
-- groups of one tenant (`poison_tenants`), and transient error types and those caused by an event's
-- content (`error_classes`).
--   original_stream, consumer_name, service
--   consumer_versions  versions that failed, in alphabetical order, joined by ', '; null where
--                      unknown
--   group_id, error_class
--   message_count      messages of the stream that failed in this consumer alone
--   tenant_count, event_type_count  distinct values among these
--   first_failed_at, last_failed_at  oldest and newest dlq_timestamp of these, UTC
WITH failed AS (
    SELECT
        d.original_stream,
        d.consumer_name,
        d.group_id,
        MIN(d.service) AS service,
        STRING_AGG(DISTINCT d.consumer_version, ', ' ORDER BY d.consumer_version)
            AS consumer_versions,
        MIN(d.error_class) AS error_class,
        COUNT(DISTINCT d.original_sequence) AS message_count,
        COUNT(DISTINCT d.tenant_id) AS tenant_count,
        COUNT(DISTINCT d.event_type) AS event_type_count,
        MIN(d.dlq_timestamp) AS first_failed_at,
        MAX(d.dlq_timestamp) AS last_failed_at
    FROM dead_letters AS d
    CROSS JOIN clock AS n
    LEFT JOIN poison_messages AS p
        ON
            p.kind = 'several_consumers'
            AND p.original_sequence = d.original_sequence
            AND p.original_stream = d.original_stream
    WHERE
        d.dlq_date > CAST(n.now AT TIME ZONE 'UTC' AS DATE) - 7
        AND d.root_failure_id IS NULL
        AND d.original_stream IS NOT NULL
        AND d.consumer_name IS NOT NULL
        AND p.failure_id IS NULL
    GROUP BY d.original_stream, d.consumer_name, d.group_id
)

SELECT
    f.original_stream,
    f.consumer_name,
    f.service,
    f.consumer_versions,
    f.group_id,
    f.error_class,
    f.message_count,
    f.tenant_count,
    f.event_type_count,
    f.first_failed_at,
    f.last_failed_at
FROM failed AS f
LEFT JOIN error_classes AS e
    ON e.error_class = f.error_class AND e.family IN ('transient', 'content')
LEFT JOIN (SELECT DISTINCT group_id FROM poison_tenants) AS t ON t.group_id = f.group_id
WHERE f.message_count >= 20 AND e.error_class IS NULL AND t.group_id IS NULL
ORDER BY f.message_count DESC, f.consumer_name, f.group_id
