-- The platform that owns the lake, and the results of verifications. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.platform (
    is_only BOOLEAN PRIMARY KEY DEFAULT true CHECK (is_only),
    id      TEXT NOT NULL,
    made_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE platform IS 'One row: the id of this platform; its lake has the same.';
COMMENT ON COLUMN platform.id IS 'subject prefix and a random id; created by the first drain';

CREATE TABLE IF NOT EXISTS dlq.verifications (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at      TIMESTAMPTZ NOT NULL,
    seconds         DOUBLE PRECISION NOT NULL,
    files           INTEGER NOT NULL,
    read_bytes      BIGINT NOT NULL,
    unchecked_files INTEGER NOT NULL,
    wrong_count     INTEGER NOT NULL,
    repaired_count  INTEGER NOT NULL,
    findings        JSONB NOT NULL
);
COMMENT ON TABLE verifications IS 'One row per finished run of dlq verify.';
COMMENT ON COLUMN verifications.files IS 'files of the lake that were read; none if a log was damaged';
COMMENT ON COLUMN verifications.unchecked_files IS 'files that an older version wrote without checksums';
COMMENT ON COLUMN verifications.wrong_count IS 'findings that were not repaired';
COMMENT ON COLUMN verifications.findings IS 'list of objects: kind, where, what, count, is_repaired';
CREATE INDEX IF NOT EXISTS verifications_started_at ON verifications (started_at DESC);

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, g.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'platform'),
            ('dlq_drain', 'SELECT, INSERT', 'verifications'),
            ('dlq_analyst', 'SELECT', 'platform'),
            ('dlq_analyst', 'SELECT', 'verifications')
        ) AS g (role_name, rights, table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON %I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0015_lake_checks') ON CONFLICT DO NOTHING;

COMMIT;
