-- Which rules of the user's made the group of a failure, beside the version of the recipe.
-- Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS fingerprint_rules VARCHAR(16);
COMMENT ON COLUMN failed_events.fingerprint_version IS 'version of the fingerprint recipe';
COMMENT ON COLUMN failed_events.fingerprint_rules IS 'hash of the user''s grouping rules; null where there were none';

INSERT INTO schema_migrations (name) VALUES ('0003_fingerprint_rules') ON CONFLICT DO NOTHING;

COMMIT;
