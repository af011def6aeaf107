-- Messages that open and close incidents: one for each alert, under a constant key. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE alert_messages ADD COLUMN IF NOT EXISTS incident TEXT;
ALTER TABLE alert_messages DROP CONSTRAINT IF EXISTS alert_messages_kind_check;
ALTER TABLE alert_messages ADD CONSTRAINT alert_messages_kind_check
    CHECK (kind IN ('firing', 'reminder', 'acknowledged', 'resolved'));
CREATE INDEX IF NOT EXISTS alert_messages_incidents ON alert_messages ((alert_ids[1]))
    WHERE incident IS NOT NULL;

COMMENT ON COLUMN alert_messages.incident IS
    'key of the incident that it opens, acknowledges or resolves; null: a message for people';

INSERT INTO schema_migrations (name) VALUES ('0013_alert_incidents') ON CONFLICT DO NOTHING;

COMMIT;
