-- Cases that were closed and failed anew. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events
    ADD COLUMN IF NOT EXISTS opening        INTEGER NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS last_closed_at TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS last_closed_as VARCHAR(50);

COMMENT ON COLUMN failed_events.opening IS
    '1; one more each time it was closed and failed anew: all else in the row is of the latest';
COMMENT ON COLUMN failed_events.last_closed_at IS
    'the closing before this opening, which did not last; null in the first';
COMMENT ON COLUMN failed_events.last_closed_as IS
    'automatic_redrive | manual_redrive | manual | discarded: that closing';
COMMENT ON COLUMN failed_events.redrive_count IS
    'redrives of this opening that ended without success';
COMMENT ON TABLE redrives IS
    'The outbox: a row per attempt, written before anything is published. Attempts of a second opening begin at 1001, and so on.';

INSERT INTO schema_migrations (name) VALUES ('0012_reopened_cases') ON CONFLICT DO NOTHING;

COMMIT;
