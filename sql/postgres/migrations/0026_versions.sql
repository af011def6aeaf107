-- Which version failed, runs, and answered a redrive. Idempotent.
--
-- What was drained before has no version here; the lake has it.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS consumer_version VARCHAR(100);
COMMENT ON COLUMN failed_events.consumer_version IS
    'version of the service that failed, as it says; null where unknown';

ALTER TABLE service_totals ADD COLUMN IF NOT EXISTS consumer_version TEXT;
COMMENT ON COLUMN service_totals.consumer_version IS
    'version of the process that counts, as it says; null where unknown';

ALTER TABLE redrives ADD COLUMN IF NOT EXISTS consumer_version TEXT;
COMMENT ON COLUMN redrives.consumer_version IS
    'version that succeeded or failed again, as it says; null where unknown';

ALTER TABLE mart_failure_groups ADD COLUMN IF NOT EXISTS versions TEXT;
ALTER TABLE mart_service_health ADD COLUMN IF NOT EXISTS versions TEXT;

CREATE TABLE IF NOT EXISTS dlq.mart_deploys (
    service          TEXT,
    consumer_version TEXT,
    first_seen_at    TIMESTAMPTZ,
    last_seen_at     TIMESTAMPTZ,
    failure_count    BIGINT,
    success_count    BIGINT,
    brought          TEXT,
    cured            TEXT,
    brought_back     TEXT
);
COMMENT ON TABLE mart_deploys IS
    'The versions of each service, and the groups that each brought, cured and brought back.';

-- Made anew, since its columns stand as in the lake's view.
DROP VIEW IF EXISTS dlq.failures;
CREATE VIEW dlq.failures WITH (security_invoker = true) AS
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
    'One row per failure as it stands now: status, message, body, age; the columns of the lake''s view.';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, g.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, DELETE', 'mart_deploys'),
            ('dlq_analyst', 'SELECT', 'mart_deploys'),
            ('dlq_analyst', 'SELECT', 'failures')
        ) AS g (role_name, rights, table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON dlq.%I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0026_versions') ON CONFLICT DO NOTHING;

COMMIT;
