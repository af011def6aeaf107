-- Cases that were closed and failed again. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events
    ADD COLUMN IF NOT EXISTS opening        INTEGER NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS last_closed_at TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS last_closed_as VARCHAR(50);

COMMENT ON COLUMN failed_events.opening IS
    '1, plus 1 each time it failed again after it was closed; all other columns describe the latest opening';
COMMENT ON COLUMN failed_events.last_closed_at IS
    'time of the closing before this opening; null in the first';
COMMENT ON COLUMN failed_events.last_closed_as IS
    'automatic_redrive | manual_redrive | manual | discarded: kind of that closing';
COMMENT ON COLUMN failed_events.redrive_count IS
    'redrives of this opening without success';
COMMENT ON TABLE redrives IS
    'The outbox: one row per attempt, written before publishing. Attempts of a second opening begin at 1001, and so on.';

INSERT INTO schema_migrations (name) VALUES ('0012_reopened_cases') ON CONFLICT DO NOTHING;

COMMIT;
