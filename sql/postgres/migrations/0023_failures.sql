-- The view failures: the same as the lake's view of that name, from the current rows. Idempotent.
--
-- It uses the rights of the user who reads it, so nobody sees more than in failed_events.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE OR REPLACE VIEW dlq.failures WITH (security_invoker = true) AS
SELECT
    f.id AS failure_id,
    f.status,
    floor(EXTRACT(EPOCH FROM now() - f.dlq_timestamp))::BIGINT AS age_seconds,
    COALESCE(f.consumer_service, f.source_service) AS service,
    regexp_replace(f.error_type, '^.*\.', '') AS error_class,
    f.error_message AS message,
    f.tenant_id,
    f.event_type,
    f.original_subject AS subject,
    f.group_id,
    f.consumer_name,
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
        WHEN f.status <> 'superseded' THEN 'open'
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
    f.dlq_sequence
FROM failed_events AS f;

COMMENT ON VIEW failures IS
    'One row per failure with its current state: status, message, body, age; the columns of the lake''s view.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_analyst') THEN
        GRANT SELECT ON dlq.failures TO dlq_analyst;
    END IF;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0023_failures') ON CONFLICT DO NOTHING;

COMMIT;
