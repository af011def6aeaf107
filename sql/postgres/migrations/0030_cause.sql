-- The cause of a failure: what a library or driver raised, whoever called it. Idempotent.
--
-- Rows that were drained before have no cause until `dlq regroup` computes it.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS cause_id VARCHAR(16);
COMMENT ON COLUMN failed_events.cause_id IS
    'fingerprint of what a library raised, whoever called it; null before dlq regroup';

ALTER TABLE mart_failure_groups ADD COLUMN IF NOT EXISTS cause_id TEXT;

-- The view as 0025 defines it, with one more column.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'dlq.failures'::regclass AND attname = 'cause_id'
    ) THEN
        EXECUTE 'CREATE OR REPLACE VIEW dlq.failures WITH (security_invoker = true) AS '
            || regexp_replace(
                pg_get_viewdef('dlq.failures'::regclass), E'\n +FROM ', E',\n    f.cause_id\\&'
            );
    END IF;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0030_cause') ON CONFLICT DO NOTHING;

COMMIT;
