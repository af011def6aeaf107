-- More rights: the tables of marts, which only the owner creates and the drain fills; the locks of
-- jobs that must run alone; the audit, where the server sets time and login. Idempotent.
--
-- To change columns of a mart, a migration drops and creates its table; dlq marts fills it again.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.mart_spikes (
    dimension      TEXT,
    value          TEXT,
    failure_count  BIGINT,
    expected_count DOUBLE PRECISION,
    expected_from  TEXT,
    is_spike       BOOLEAN
);
COMMENT ON TABLE mart_spikes IS 'Series with more failures than usual right now.';

CREATE TABLE IF NOT EXISTS dlq.mart_failures_hourly (
    hour_at       TIMESTAMPTZ,
    service       TEXT,
    error_class   TEXT,
    failure_count BIGINT,
    group_count   BIGINT
);
COMMENT ON TABLE mart_failures_hourly IS 'Failures by hour.';

CREATE TABLE IF NOT EXISTS dlq.mart_failures_by_type (
    error_class    TEXT,
    service        TEXT,
    failure_count  BIGINT,
    group_count    BIGINT,
    tenant_count   BIGINT,
    first_seen_at  TIMESTAMPTZ,
    last_seen_at   TIMESTAMPTZ,
    open_count     BIGINT,
    resolved_count BIGINT
);
COMMENT ON TABLE mart_failures_by_type IS 'Failures by error type and service.';

CREATE TABLE IF NOT EXISTS dlq.mart_failure_groups (
    group_id                TEXT,
    parent_id               TEXT,
    state                   TEXT,
    is_escalating           BOOLEAN,
    escalation_limit        DOUBLE PRECISION,
    error_class             TEXT,
    template                TEXT,
    frames                  TEXT,
    sample_failure_id       TEXT,
    failure_count           BIGINT,
    failure_count_1h        BIGINT,
    failure_count_24h       BIGINT,
    first_seen_at           TIMESTAMPTZ,
    last_seen_at            TIMESTAMPTZ,
    last_resolved_at        TIMESTAMPTZ,
    services                TEXT,
    consumers               TEXT,
    tenant_count            BIGINT,
    open_count              BIGINT,
    resolved_count          BIGINT,
    parked_count            BIGINT,
    discarded_count         BIGINT,
    reopened_count          BIGINT,
    redrive_count           BIGINT,
    redrive_succeeded_count BIGINT,
    redrive_chance          DOUBLE PRECISION
);
COMMENT ON TABLE mart_failure_groups IS 'The groups of similar failures and their state.';

CREATE TABLE IF NOT EXISTS dlq.mart_pending_transient (
    group_id           TEXT,
    error_class        TEXT,
    service            TEXT,
    consumer_name      TEXT,
    open_count         BIGINT,
    pending_count      BIGINT,
    retried_count      BIGINT,
    parked_count       BIGINT,
    oldest_opened_at   TIMESTAMPTZ,
    oldest_age_seconds BIGINT
);
COMMENT ON TABLE mart_pending_transient IS 'Open temporary failures: the candidates for a redrive.';

CREATE TABLE IF NOT EXISTS dlq.mart_redrive_outcomes (
    group_id              TEXT,
    error_class           TEXT,
    case_count            BIGINT,
    attempt_count         BIGINT,
    automatic_count       BIGINT,
    succeeded_count       BIGINT,
    failed_again_count    BIGINT,
    unroutable_count      BIGINT,
    refused_count         BIGINT,
    expired_count         BIGINT,
    too_late_count        BIGINT,
    outcome_unknown_count BIGINT,
    waiting_count         BIGINT,
    success_rate          DOUBLE PRECISION
);
COMMENT ON TABLE mart_redrive_outcomes IS 'Results of redrives.';

CREATE TABLE IF NOT EXISTS dlq.mart_resolution_times (
    dimension         TEXT,
    value             TEXT,
    n                 BIGINT,
    events            BIGINT,
    open_share        DOUBLE PRECISION,
    median_seconds    DOUBLE PRECISION,
    p90_seconds       DOUBLE PRECISION,
    rmst_24h_seconds  DOUBLE PRECISION,
    rmst_7d_seconds   DOUBLE PRECISION,
    follow_up_seconds DOUBLE PRECISION
);
COMMENT ON TABLE mart_resolution_times IS 'Time until a failure ends.';

CREATE TABLE IF NOT EXISTS dlq.mart_resolution_curves (
    dimension         TEXT,
    value             TEXT,
    t_seconds         DOUBLE PRECISION,
    at_risk           BIGINT,
    ended             BIGINT,
    survival          DOUBLE PRECISION,
    automatic_redrive DOUBLE PRECISION,
    manual_redrive    DOUBLE PRECISION,
    manual            DOUBLE PRECISION,
    discarded         DOUBLE PRECISION
);
COMMENT ON TABLE mart_resolution_curves IS 'The share of failures still open after a time, and how the others ended.';

CREATE TABLE IF NOT EXISTS dlq.mart_service_traffic_hourly (
    hour_at             TIMESTAMPTZ,
    service             TEXT,
    handled_count       BIGINT,
    succeeded_count     BIGINT,
    retried_count       BIGINT,
    dead_lettered_count BIGINT,
    skipped_count       BIGINT
);
COMMENT ON TABLE mart_service_traffic_hourly IS 'Messages handled by services, if their totals are known.';

CREATE TABLE IF NOT EXISTS dlq.mart_service_health (
    service                 TEXT,
    score                   DOUBLE PRECISION,
    traffic_part            DOUBLE PRECISION,
    critical_part           DOUBLE PRECISION,
    age_part                DOUBLE PRECISION,
    alert                   TEXT,
    failure_count_1h        BIGINT,
    failure_count_24h       BIGINT,
    failure_count           BIGINT,
    expected_count_1h       DOUBLE PRECISION,
    pressure                DOUBLE PRECISION,
    critical_count_1h       BIGINT,
    critical_count_24h      BIGINT,
    open_count              BIGINT,
    open_share              DOUBLE PRECISION,
    oldest_open_age_seconds BIGINT,
    p90_open_age_seconds    BIGINT,
    has_totals              BOOLEAN,
    handled_count           BIGINT,
    succeeded_count         BIGINT,
    dead_lettered_count     BIGINT,
    handled_count_24h       BIGINT,
    succeeded_count_24h     BIGINT,
    dead_lettered_count_24h BIGINT,
    failure_rate_24h        DOUBLE PRECISION,
    failure_rate_24h_low    DOUBLE PRECISION,
    failure_rate_24h_high   DOUBLE PRECISION,
    burn_5m                 DOUBLE PRECISION,
    burn_30m                DOUBLE PRECISION,
    burn_1h                 DOUBLE PRECISION,
    burn_6h                 DOUBLE PRECISION,
    burn_3d                 DOUBLE PRECISION
);
COMMENT ON TABLE mart_service_health IS 'The health of each service: its failures, and its failure rate if its totals are known.';

CREATE TABLE IF NOT EXISTS dlq.mart_hour_of_week (
    dimension      TEXT,
    value          TEXT,
    hour_of_week   BIGINT,
    week_count     BIGINT,
    failure_count  BIGINT,
    weeks_hit      BIGINT,
    weeks_high     BIGINT,
    expected_count DOUBLE PRECISION,
    chi_square     DOUBLE PRECISION,
    p_value        DOUBLE PRECISION
);
COMMENT ON TABLE mart_hour_of_week IS 'Failures by hour of the week.';

CREATE TABLE IF NOT EXISTS dlq.mart_co_failures (
    service_a          TEXT,
    service_b          TEXT,
    outbreaks_a        BIGINT,
    outbreaks_b        BIGINT,
    together_count     BIGINT,
    leader             TEXT,
    median_lag_seconds DOUBLE PRECISION,
    slot_count         BIGINT,
    lift               DOUBLE PRECISION,
    p_value            DOUBLE PRECISION,
    adjusted_p         DOUBLE PRECISION
);
COMMENT ON TABLE mart_co_failures IS 'Services that often begin to fail together.';

CREATE TABLE IF NOT EXISTS dlq.mart_contributors (
    subject         TEXT,
    attribute       TEXT,
    value           TEXT,
    other_attribute TEXT,
    other_value     TEXT,
    failure_count   BIGINT,
    share           DOUBLE PRECISION,
    baseline_share  DOUBLE PRECISION,
    risk_ratio      DOUBLE PRECISION,
    adjusted_p      DOUBLE PRECISION
);
COMMENT ON TABLE mart_contributors IS 'Values that certain failures have in common and other failures do not.';

CREATE TABLE IF NOT EXISTS dlq.mart_poison_tenants (
    tenant_id      TEXT,
    group_id       TEXT,
    error_class    TEXT,
    services       TEXT,
    failure_count  BIGINT,
    open_count     BIGINT,
    group_count    BIGINT,
    share_of_group DOUBLE PRECISION,
    share_of_all   DOUBLE PRECISION,
    concentration  DOUBLE PRECISION
);
COMMENT ON TABLE mart_poison_tenants IS 'Tenants that have most of a failure group, and far less of all other failures.';

CREATE TABLE IF NOT EXISTS dlq.mart_poison_messages (
    kind              TEXT,
    failure_id        TEXT,
    group_id          TEXT,
    error_class       TEXT,
    event_type        TEXT,
    tenant_id         TEXT,
    original_stream   TEXT,
    original_sequence BIGINT,
    consumer_count    BIGINT,
    redrive_count     BIGINT,
    cured_count       BIGINT
);
COMMENT ON TABLE mart_poison_messages IS 'Messages whose redrives all fail, and messages that fail in several consumers.';

CREATE TABLE IF NOT EXISTS dlq.mart_poison_consumers (
    original_stream   TEXT,
    consumer_name     TEXT,
    service           TEXT,
    consumer_versions TEXT,
    group_id          TEXT,
    error_class       TEXT,
    message_count     BIGINT,
    tenant_count      BIGINT,
    event_type_count  BIGINT,
    first_failed_at   TIMESTAMPTZ,
    last_failed_at    TIMESTAMPTZ
);
COMMENT ON TABLE mart_poison_consumers IS 'Consumers whose code may be the cause.';

CREATE TABLE IF NOT EXISTS dlq.mart_metrics (
    metric TEXT,
    label  TEXT,
    value  DOUBLE PRECISION
);
COMMENT ON TABLE mart_metrics IS 'The five metrics: rate, error types, redrives, health, resolution time.';

ALTER FUNCTION dlq.set_failed_events_updated_at() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION dlq.refuse_audit_change() SET search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT replace(g.statement, '$role', quote_ident(r.rolname)) AS statement
        FROM (VALUES
            ('dlq_drain', 'GRANT DELETE ON dlq.lock_drain, dlq.lock_marts, dlq.lock_regroup TO $role'),
            ('dlq_redriver', 'GRANT DELETE ON dlq.lock_redrive TO $role'),
            ('dlq_alerts', 'GRANT DELETE ON dlq.lock_alerts TO $role'),
            -- Revoke the right on the table first: this also revokes those on columns.
            ('dlq_redriver', 'REVOKE INSERT ON dlq.audit_log FROM $role'),
            ('dlq_alerts', 'REVOKE INSERT ON dlq.audit_log FROM $role'),
            ('dlq_maintenance', 'REVOKE INSERT ON dlq.audit_log FROM $role')
        ) AS g (role_name, statement)
        JOIN pg_roles AS r ON r.rolname = g.role_name
        UNION ALL
        SELECT format('GRANT INSERT (actor, action, reason, batch_id, failure_ids, detail)'
            ' ON dlq.audit_log TO %I', rolname)
        FROM pg_roles WHERE rolname IN ('dlq_redriver', 'dlq_alerts', 'dlq_maintenance')
        UNION ALL
        SELECT format('GRANT %s ON dlq.%I TO %I', g.rights, m.relname, r.rolname)
        FROM (VALUES ('dlq_drain', 'SELECT, INSERT, DELETE'), ('dlq_analyst', 'SELECT')) AS g (role_name, rights)
        JOIN pg_roles AS r ON r.rolname = g.role_name
        JOIN pg_class AS m ON starts_with(m.relname, 'mart_') AND m.relkind = 'r'
          AND m.relnamespace = 'dlq'::regnamespace
        UNION ALL
        SELECT format('GRANT USAGE ON SCHEMA dlq TO %I', rolname) FROM pg_roles
        WHERE rolname IN ('dlq_drain', 'dlq_redriver', 'dlq_alerts', 'dlq_analyst', 'dlq_auditor',
                          'dlq_payloads', 'dlq_maintenance')
    LOOP
        EXECUTE given.statement;
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0018_rights') ON CONFLICT DO NOTHING;

COMMIT;
