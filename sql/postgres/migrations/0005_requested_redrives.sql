-- Requested redrives, with the earliest time for them. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS redrive_not_before TIMESTAMPTZ;
COMMENT ON COLUMN failed_events.redrive_not_before IS
    'when a requested redrive is due; the schedule does it at that time, not earlier';

INSERT INTO schema_migrations (name) VALUES ('0005_requested_redrives') ON CONFLICT DO NOTHING;

COMMIT;
