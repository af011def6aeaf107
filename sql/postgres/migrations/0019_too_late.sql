-- Redrives of events that are too old. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE redrive_batches ADD COLUMN IF NOT EXISTS max_age_seconds DOUBLE PRECISION;
COMMENT ON COLUMN redrive_batches.max_age_seconds IS
    'maximum age of events to publish; null: no limit';

ALTER TABLE redrives DROP CONSTRAINT IF EXISTS redrives_state_check;
ALTER TABLE redrives ADD CONSTRAINT redrives_state_check CHECK (state IN
    ('planned', 'published', 'succeeded', 'failed_again', 'unroutable', 'refused', 'expired',
     'too_late', 'outcome_unknown', 'cancelled'));

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_analyst') THEN
        GRANT SELECT (max_age_seconds) ON redrive_batches TO dlq_analyst;
    END IF;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0019_too_late') ON CONFLICT DO NOTHING;

COMMIT;
