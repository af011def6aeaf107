-- Dead letters from dead-letter streams of others, and how far each of these was read. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS imported_from TEXT;
COMMENT ON COLUMN failed_events.imported_from IS
    'message of another dead-letter stream that it was imported from: stream/sequence/nanoseconds; null: none';

CREATE TABLE IF NOT EXISTS dlq.imports (
    stream       TEXT NOT NULL,
    subjects     TEXT NOT NULL,
    created      TIMESTAMPTZ NOT NULL,
    sequence     BIGINT NOT NULL,
    timestamp_ns BIGINT NOT NULL,
    log_sequence BIGINT NOT NULL,
    updated_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, subjects)
);
COMMENT ON TABLE imports IS
    'How far dead-letter streams of others were imported: one row per stream and subject filters.';
COMMENT ON COLUMN imports.subjects IS 'subject filters of the profile, separated by spaces';
COMMENT ON COLUMN imports.created IS 'when the stream was created; another one is read from its start';
COMMENT ON COLUMN imports.sequence IS 'last message that was imported or skipped; 0: none yet';
COMMENT ON COLUMN imports.timestamp_ns IS
    'server time of that message, nanoseconds since 1970: tells whether the stream is still the same';
COMMENT ON COLUMN imports.log_sequence IS
    'all imported messages above sequence are above this one in the log: they are skipped';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, g.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'imports'),
            ('dlq_analyst', 'SELECT', 'imports')
        ) AS g (role_name, rights, table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON %I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0032_imports') ON CONFLICT DO NOTHING;

COMMIT;
