-- Each failure with its current state: error, message, body, age.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per failure. A redrive that failed again has no row of its own: the row of the first
-- failure of its chain has the status, and `dead_letters` has both. PostgreSQL has a view of the same
-- name with these columns.
--   status            pending | retried | parked | resolved | discarded
--   is_open           pending, retried or parked
--   age_seconds       since it became a dead letter, whole seconds
--   message           text of the exception, redacted
--   subject           subject of the event; a redrive goes there
--   reopened_count    how often it failed again after it was closed
--   redrive_count     failed redrives since it was opened
--   opened_at         when it became a dead letter, by the service's clock, UTC
--   closed_at         when it was resolved or discarded, UTC; null while open
--   cause             open | automatic_redrive | manual_redrive | manual | discarded
--   body              body of the event as JSON, redacted
--   headers           headers of the event as a JSON object, redacted
--   the rest          as in `dead_letters`
SELECT
    o.failure_id,
    c.status,
    c.is_open,
    CAST(FLOOR(EPOCH(CURRENT_TIMESTAMP) - EPOCH(o.dlq_timestamp)) AS BIGINT) AS age_seconds,
    o.service,
    o.error_class,
    o.error_message AS message,
    o.tenant_id,
    o.event_type,
    o.original_subject AS subject,
    o.group_id,
    o.consumer_name,
    o.consumer_version,
    d.handler,
    o.error_type,
    o.retry_count,
    o.opening - 1 AS reopened_count,
    c.redrive_count,
    o.dlq_timestamp AS opened_at,
    c.closed_at,
    c.cause,
    o.dlq_reason,
    o.first_attempt_at,
    o.last_attempt_at,
    o.root_failure_id,
    o.event_id,
    o.source_service,
    o.original_stream,
    o.original_sequence,
    o.field_id,
    d.farmer_id,
    o.parent_id,
    d.stack_trace,
    d.original_data AS body,
    d.original_headers AS headers,
    o.parse_error,
    o.published_at,
    o.epoch,
    o.dlq_sequence,
    o.cause_id
FROM (
    SELECT *, MAX(opening) OVER (PARTITION BY failure_id) AS latest_opening FROM openings
) AS o
INNER JOIN dead_letters AS d ON d.epoch = o.epoch AND d.dlq_sequence = o.dlq_sequence
INNER JOIN cases AS c ON c.failure_id = o.failure_id AND c.opening = o.opening
WHERE o.opening = o.latest_opening
