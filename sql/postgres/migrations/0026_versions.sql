-- The version that runs, and that reported the outcome of a redrive. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE service_totals ADD COLUMN IF NOT EXISTS consumer_version TEXT;
COMMENT ON COLUMN service_totals.consumer_version IS
    'release of the service, from the process; null where unknown';

ALTER TABLE redrives ADD COLUMN IF NOT EXISTS consumer_version TEXT;
COMMENT ON COLUMN redrives.consumer_version IS
    'version that succeeded or failed again; null where unknown';

ALTER TABLE mart_failure_groups ADD COLUMN IF NOT EXISTS versions TEXT;
ALTER TABLE mart_service_health ADD COLUMN IF NOT EXISTS versions TEXT;

CREATE TABLE IF NOT EXISTS dlq.mart_deploys (
    service          TEXT,
    consumer_version TEXT,
    first_seen_at    TIMESTAMPTZ,
    last_seen_at     TIMESTAMPTZ,
    failure_count    BIGINT,
    success_count    BIGINT,
    brought          TEXT,
    cured            TEXT,
    brought_back     TEXT
);
COMMENT ON TABLE mart_deploys IS
    'The versions of each service, and the groups that each brought, cured and brought back.';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, g.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, DELETE', 'mart_deploys'),
            ('dlq_analyst', 'SELECT', 'mart_deploys')
        ) AS g (role_name, rights, table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON dlq.%I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0026_versions') ON CONFLICT DO NOTHING;

COMMIT;
