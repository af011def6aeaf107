-- Reads of raw events are recorded in the audit, so users who may read them may add rows to it.
-- Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_payloads') THEN
        GRANT INSERT (actor, action, reason, batch_id, failure_ids, detail)
            ON dlq.audit_log TO dlq_payloads;
    END IF;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0024_payload_audit') ON CONFLICT DO NOTHING;

COMMIT;
