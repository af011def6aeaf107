-- Options of a batch of redrives besides its selection: target subject, edit, rate.
-- Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE redrive_batches
    ADD COLUMN IF NOT EXISTS redirect_to TEXT,
    ADD COLUMN IF NOT EXISTS patch       JSONB,
    ADD COLUMN IF NOT EXISTS per_second  DOUBLE PRECISION;

COMMENT ON COLUMN redrive_batches.state IS
    'planned | awaiting_approval | running | paused | done | aborted | cancelled';
COMMENT ON COLUMN redrive_batches.redirect_to IS 'subject to publish to, instead of the original one';
COMMENT ON COLUMN redrive_batches.patch IS
    'JSON merge patch (RFC 7396) for the events'' bodies; not redacted';
COMMENT ON COLUMN redrive_batches.per_second IS
    'requested redrives per second; null: the budget decides';

-- For the redriver and `dlq batches`: batches that have not ended.
CREATE INDEX IF NOT EXISTS redrive_batches_open ON redrive_batches (created_at)
    WHERE state IN ('planned', 'awaiting_approval', 'running', 'paused');

INSERT INTO schema_migrations (name) VALUES ('0006_redrive_control') ON CONFLICT DO NOTHING;

COMMIT;
