-- One entry in services with incidents for all alerts of an incident. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE alerts ADD COLUMN IF NOT EXISTS entry_id BIGINT;
COMMENT ON COLUMN alerts.entry_id IS
    'the alert in whose entry services with incidents are told about this one; null: its own';

DROP INDEX IF EXISTS dlq.alert_messages_incidents;
CREATE INDEX IF NOT EXISTS alert_messages_entries ON alert_messages (incident)
    WHERE incident IS NOT NULL;

INSERT INTO schema_migrations (name) VALUES ('0036_incident_entries') ON CONFLICT DO NOTHING;

COMMIT;
