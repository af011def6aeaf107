-- Incidents and the outbreaks of failure groups that they consist of. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.mart_outbreaks (
    incident_id    TEXT,
    group_id       TEXT,
    cause_id       TEXT,
    noticed_minute BIGINT,
    from_minute    BIGINT,
    from_at        TIMESTAMPTZ,
    until_minute   BIGINT,
    is_over        BOOLEAN
);
COMMENT ON TABLE mart_outbreaks IS
    'Times in which a failure group had more failures than usual, and the incident of each.';

CREATE TABLE IF NOT EXISTS dlq.mart_incidents (
    incident_id     TEXT,
    from_at         TIMESTAMPTZ,
    until_at        TIMESTAMPTZ,
    peak_count      BIGINT,
    peak_at         TIMESTAMPTZ,
    services        TEXT,
    groups          TEXT,
    causes          TEXT,
    service_count   BIGINT,
    group_count     BIGINT,
    failure_count   BIGINT,
    tenant_count    BIGINT,
    cured_count     BIGINT,
    open_count      BIGINT,
    delay_seconds   BIGINT
);
COMMENT ON TABLE mart_incidents IS
    'Groups that began to fail more than usual, together or for one cause, as one story.';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, g.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, DELETE', 'mart_outbreaks'),
            ('dlq_drain', 'SELECT, INSERT, DELETE', 'mart_incidents'),
            ('dlq_analyst', 'SELECT', 'mart_outbreaks'),
            ('dlq_analyst', 'SELECT', 'mart_incidents')
        ) AS g (role_name, rights, table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON dlq.%I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0033_incidents') ON CONFLICT DO NOTHING;

COMMIT;
