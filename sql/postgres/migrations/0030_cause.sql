-- The most frequent cause of a group. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE mart_failure_groups ADD COLUMN IF NOT EXISTS cause_id TEXT;

INSERT INTO schema_migrations (name) VALUES ('0030_cause') ON CONFLICT DO NOTHING;

COMMIT;
