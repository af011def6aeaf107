-- The user's rules that made the group of a failure, besides the version of the algorithm.
-- Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS fingerprint_rules VARCHAR(16);
COMMENT ON COLUMN failed_events.fingerprint_version IS 'version of the fingerprint algorithm';
COMMENT ON COLUMN failed_events.fingerprint_rules IS 'hash of the user''s grouping rules; null if none';

INSERT INTO schema_migrations (name) VALUES ('0003_fingerprint_rules') ON CONFLICT DO NOTHING;

COMMIT;
