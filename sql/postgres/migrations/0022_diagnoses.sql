-- Findings of the flow `doctor`, for the alert `loses_data`. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.diagnoses (
    at             TIMESTAMPTZ PRIMARY KEY,
    loses_count    INTEGER NOT NULL,
    may_lose_count INTEGER NOT NULL,
    findings       JSONB NOT NULL
);
COMMENT ON TABLE diagnoses IS 'One row per run of the flow doctor; kept for a month.';
COMMENT ON COLUMN diagnoses.loses_count IS 'findings with severity "loses data"';
COMMENT ON COLUMN diagnoses.may_lose_count IS 'findings with severity "may lose"';
COMMENT ON COLUMN diagnoses.findings IS 'list of objects, the worst first: rule, severity, subject, sentence, command';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, g.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, DELETE', 'diagnoses'),
            ('dlq_analyst', 'SELECT', 'diagnoses')
        ) AS g (role_name, rights, table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON %I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0022_diagnoses') ON CONFLICT DO NOTHING;

COMMIT;
