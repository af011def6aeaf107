-- Each failure once: its first dead letter, whichever way and however often it was published.
--
-- Owner: pipelines/analysis
-- Grain: one row per failure_id. A redrive that failed again is a failure too; `cases` tells
-- which failures are the live row of their chain.
--   log_position      place in the whole log, see `epochs`
--   consumer_address  <stream>/<durable> of the failing consumer, null where a part is unknown
--   seen_count        messages that carried this failure
--   the rest          as in `dead_letters`
WITH letters AS (
    SELECT
        CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + d.dlq_sequence
            AS log_position,
        NULLIF(d.original_stream, '') || '/' || NULLIF(d.consumer_name, '') AS consumer_address,
        d.*
    FROM dead_letters AS d
    INNER JOIN epochs AS e ON e.epoch = d.epoch
),

firsts AS (
    SELECT failure_id, MIN(log_position) AS log_position, COUNT(*) AS seen_count
    FROM letters
    GROUP BY failure_id
)

SELECT
    l.failure_id,
    l.log_position,
    l.epoch,
    l.dlq_sequence,
    l.published_at,
    l.dlq_date,
    f.seen_count,
    l.root_failure_id,
    l.redrive_id,
    l.redrive_attempt,
    l.event_id,
    l.event_type,
    l.original_subject,
    l.original_stream,
    l.original_sequence,
    l.source_service,
    l.service,
    l.consumer_name,
    l.consumer_version,
    l.consumer_address,
    l.tenant_id,
    l.field_id,
    l.error_type,
    l.error_class,
    l.error_message,
    l.retry_count,
    l.first_attempt_at,
    l.last_attempt_at,
    l.dlq_timestamp,
    l.dlq_reason,
    l.parse_error,
    l.group_id,
    l.parent_id,
    l.template,
    l.frames
FROM letters AS l
INNER JOIN firsts AS f ON f.failure_id = l.failure_id AND f.log_position = l.log_position
