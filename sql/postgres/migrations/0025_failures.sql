-- Which service failed, whether a failure is open, whether a redrive succeeded: each is defined only
-- here. The view failures has the same columns as the lake's view of that name, from the current
-- rows. Failures that were drained before have no consumer_version here (the lake has it), and no
-- cause_id until `dlq regroup`. Idempotent.
--
-- service and is_open are functions of a row. A stored generated column would rewrite the table, and
-- servers before PostgreSQL 18 have no other kind. The planner inlines the functions, so is_open(f)
-- uses the index of open failures. The views use the rights of the user who reads them, so nobody
-- sees more than in the tables.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS consumer_version VARCHAR(100);
COMMENT ON COLUMN failed_events.consumer_version IS
    'release of the consumer that failed, from the consumer; null where unknown';
ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS cause_id VARCHAR(16);
COMMENT ON COLUMN failed_events.cause_id IS
    'fingerprint of what a library raised, whoever called it; null before dlq regroup';

CREATE OR REPLACE FUNCTION dlq.service(f dlq.failed_events) RETURNS VARCHAR
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN COALESCE(f.consumer_service, f.source_service);
COMMENT ON FUNCTION service(failed_events) IS
    'The service that failed, if known, else the one that published the event.';

CREATE OR REPLACE FUNCTION dlq.is_open(f dlq.failed_events) RETURNS BOOLEAN
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN f.status IN ('pending', 'retried', 'parked');
COMMENT ON FUNCTION is_open(failed_events) IS
    'Whether a failure is open: not resolved, not discarded, not superseded.';

CREATE OR REPLACE VIEW dlq.failures WITH (security_invoker = true) AS
SELECT
    f.id AS failure_id,
    f.status,
    floor(EXTRACT(EPOCH FROM now() - f.dlq_timestamp))::BIGINT AS age_seconds,
    service(f)::VARCHAR(100) AS service,
    regexp_replace(f.error_type, '^.*\.', '') AS error_class,
    f.error_message AS message,
    f.tenant_id,
    f.event_type,
    f.original_subject AS subject,
    f.group_id,
    f.consumer_name,
    f.consumer_version,
    f.handler,
    f.error_type,
    f.retry_count,
    f.opening - 1 AS reopened_count,
    f.redrive_count,
    f.dlq_timestamp AS opened_at,
    COALESCE(f.resolved_at, f.discarded_at) AS closed_at,
    CASE
        WHEN f.status = 'discarded' THEN 'discarded'
        WHEN f.status = 'resolved' THEN f.resolution_cause
        ELSE 'open'
    END AS cause,
    f.dlq_reason,
    f.first_attempt_at,
    f.last_attempt_at,
    f.root_failure_id,
    f.event_id,
    f.source_service,
    f.original_stream,
    f.original_sequence,
    f.field_id,
    f.farmer_id,
    f.parent_id,
    f.stack_trace,
    f.original_data AS body,
    f.original_headers AS headers,
    f.parse_error,
    f.published_at,
    f.epoch,
    f.dlq_sequence,
    f.cause_id,
    is_open(f) AS is_open,
    f.created_at,
    f.alert_sent,
    f.resolution_notes
FROM failed_events AS f
WHERE f.status <> 'superseded';

COMMENT ON VIEW failures IS
    'One row per failure with its current state: status, message, body, age; the columns of the lake''s view, '
    'and created_at, alert_sent and resolution_notes of failed_events.';

GRANT EXECUTE ON FUNCTION dlq.service(dlq.failed_events), dlq.is_open(dlq.failed_events) TO PUBLIC;

CREATE OR REPLACE VIEW dlq.answered_redrives WITH (security_invoker = true) AS
SELECT
    r.id AS redrive_id,
    r.failure_id,
    r.attempt,
    r.batch_id,
    r.group_id,
    r.published_at,
    r.ended_at,
    r.state = 'succeeded' AS has_succeeded
FROM redrives AS r
WHERE r.state IN ('succeeded', 'failed_again');

COMMENT ON VIEW answered_redrives IS
    'One row per redrive that succeeded or failed again; the mean of has_succeeded is the success rate.';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN SELECT rolname FROM pg_roles WHERE rolname IN ('dlq_drain', 'dlq_analyst') LOOP
        EXECUTE format('GRANT SELECT ON dlq.failures, dlq.answered_redrives TO %I', given.rolname);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0025_failures') ON CONFLICT DO NOTHING;

COMMIT;
