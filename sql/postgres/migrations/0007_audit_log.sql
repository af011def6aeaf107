-- Who did what to failures, when, why, and with which result. Rows are added, never changed.
-- Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.audit_log (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    reason      TEXT,
    batch_id    UUID,
    failure_ids UUID[] NOT NULL DEFAULT '{}',
    detail      JSONB NOT NULL DEFAULT '{}',
    db_user     TEXT NOT NULL DEFAULT session_user
);
COMMENT ON TABLE audit_log IS 'Actions of people and schedules on failures. Rows are added, never changed.';
COMMENT ON COLUMN audit_log.actor IS 'name of the person, not verified';
COMMENT ON COLUMN audit_log.action IS 'redrive.planned, redrive.paused, …, triage.discarded, …';
COMMENT ON COLUMN audit_log.reason IS 'reason given by the person';
COMMENT ON COLUMN audit_log.batch_id IS 'id of a batch of redrives, or of a decision about many failures';
COMMENT ON COLUMN audit_log.failure_ids IS 'failures of a decision; those of a batch are in redrives';
COMMENT ON COLUMN audit_log.detail IS 'selection, counts, edit, outcomes; redacted';
COMMENT ON COLUMN audit_log.db_user IS 'login in PostgreSQL, verified';

CREATE INDEX IF NOT EXISTS audit_log_batch ON audit_log (batch_id);

CREATE OR REPLACE FUNCTION dlq.refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END;
$$;
DROP TRIGGER IF EXISTS audit_log_is_append_only ON audit_log;
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

REVOKE ALL ON audit_log FROM PUBLIC;

-- Members may read it. The migrating user may lack the right to create roles; the owner can then
-- grant the table by hand.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_auditor') THEN
        CREATE ROLE dlq_auditor NOLOGIN;
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
    NULL;
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_auditor') THEN
        GRANT SELECT ON audit_log TO dlq_auditor;
    END IF;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0007_audit_log') ON CONFLICT DO NOTHING;

COMMIT;
