-- How PostgreSQL stores long values of failures. Idempotent.
--
-- A dead letter has about 3 KB. Compressing that with pglz, the default, is most of what storing it
-- costs PostgreSQL. Where the server has lz4, new values are compressed with that: the same size for
-- less CPU. Elsewhere rows of up to 4 KB are stored as they are, in the table itself, which then
-- takes more space (docs/operations.md). Stored rows stay as they are.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

DO $$
DECLARE
    long_column TEXT;
BEGIN
    IF 'lz4' = ANY (SELECT unnest(enumvals) FROM pg_settings WHERE name = 'default_toast_compression') THEN
        FOREACH long_column IN ARRAY
            ARRAY['error_message', 'stack_trace', 'original_data', 'original_headers', 'attempts']
        LOOP
            EXECUTE format('ALTER TABLE dlq.failed_events ALTER COLUMN %I SET COMPRESSION lz4', long_column);
        END LOOP;
    ELSE
        ALTER TABLE dlq.failed_events SET (toast_tuple_target = 4080);
    END IF;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0035_row_storage') ON CONFLICT DO NOTHING;

COMMIT;
