-- What a batch of redrives was told besides its selection: where to, how changed, how fast.
-- Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE redrive_batches
    ADD COLUMN IF NOT EXISTS redirect_to TEXT,
    ADD COLUMN IF NOT EXISTS patch       JSONB,
    ADD COLUMN IF NOT EXISTS per_second  DOUBLE PRECISION;

COMMENT ON COLUMN redrive_batches.state IS
    'planned | awaiting_approval | running | paused | done | aborted | cancelled';
COMMENT ON COLUMN redrive_batches.redirect_to IS 'subject that the events go to instead of their own';
COMMENT ON COLUMN redrive_batches.patch IS
    'JSON merge patch (RFC 7396) of the events'' bodies, as it was given: it is not redacted';
COMMENT ON COLUMN redrive_batches.per_second IS
    'redrives a second that a person asked for; null leaves it to the budget';

-- Batches that are not over: the redriver, and `dlq batches`, ask this.
CREATE INDEX IF NOT EXISTS redrive_batches_open ON redrive_batches (created_at)
    WHERE state IN ('planned', 'awaiting_approval', 'running', 'paused');

INSERT INTO schema_migrations (name) VALUES ('0006_redrive_control') ON CONFLICT DO NOTHING;

COMMIT;
