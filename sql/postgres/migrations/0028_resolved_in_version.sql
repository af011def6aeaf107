-- The version that a person said repairs a failure group. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS resolved_in_version VARCHAR(100);
COMMENT ON COLUMN failed_events.resolved_in_version IS
    'version of its service that a person said repairs it; null where not said';

ALTER TABLE mart_failure_groups ADD COLUMN IF NOT EXISTS resolved_in_version TEXT;
ALTER TABLE mart_failure_groups ADD COLUMN IF NOT EXISTS regressed_in_version TEXT;

CREATE TABLE IF NOT EXISTS dlq.mart_fixes (
    group_id            TEXT,
    service             TEXT,
    consumer_version    TEXT,
    resolved_in_version TEXT,
    resolved_at         TIMESTAMPTZ,
    is_older            BOOLEAN,
    last_failed_at      TIMESTAMPTZ
);
COMMENT ON TABLE mart_fixes IS
    'Groups that a person said are repaired in a version, with the versions that failed.';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, g.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, DELETE', 'mart_fixes'),
            ('dlq_analyst', 'SELECT', 'mart_fixes')
        ) AS g (role_name, rights, table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON dlq.%I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0028_resolved_in_version') ON CONFLICT DO NOTHING;

COMMIT;
