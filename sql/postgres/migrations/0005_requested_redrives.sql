-- Redrives that were asked for, with the time before which they must not happen. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS redrive_not_before TIMESTAMPTZ;
COMMENT ON COLUMN failed_events.redrive_not_before IS
    'when a redrive that was asked for is due; the scheduled redrive takes it then, and no sooner';

INSERT INTO schema_migrations (name) VALUES ('0005_requested_redrives') ON CONFLICT DO NOTHING;

COMMIT;
