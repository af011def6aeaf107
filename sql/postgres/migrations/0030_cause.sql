-- The cause of a failure: what a library or driver raised, whoever called it. Idempotent.
--
-- Rows that were drained before have no cause until `dlq regroup` computes it.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS cause_id VARCHAR(16);
COMMENT ON COLUMN failed_events.cause_id IS
    'fingerprint of what a library raised, whoever called it; null before dlq regroup';

ALTER TABLE mart_failure_groups ADD COLUMN IF NOT EXISTS cause_id TEXT;

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
    is_open(f) AS is_open,
    f.created_at,
    f.alert_sent,
    f.resolution_notes,
    f.consumer_version,
    f.cause_id
FROM failed_events AS f
WHERE f.status <> 'superseded';

INSERT INTO schema_migrations (name) VALUES ('0030_cause') ON CONFLICT DO NOTHING;

COMMIT;
