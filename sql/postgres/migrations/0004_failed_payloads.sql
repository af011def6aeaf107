-- Raw dead letters, if DLQ_KEEP_PAYLOADS is set. They are not masked, so only the owner and granted
-- users may read them. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.failed_payloads (
    failure_id   UUID PRIMARY KEY REFERENCES failed_events (id) ON DELETE CASCADE,
    subject      TEXT NOT NULL,
    dlq_sequence BIGINT NOT NULL,
    timestamp_ns BIGINT NOT NULL,
    data         BYTEA NOT NULL,
    stored_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE failed_payloads IS
    'Original dead letters, unmasked: grant SELECT only to redrivers.';
CREATE INDEX IF NOT EXISTS failed_payloads_stored_at ON failed_payloads (stored_at);
ALTER TABLE failed_payloads ALTER COLUMN data SET STORAGE EXTERNAL;
REVOKE ALL ON failed_payloads FROM PUBLIC;

-- Members may redrive events that the stream has lost. The migrating user may lack the right to
-- create roles; the owner can then grant the table by hand.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_payloads') THEN
        CREATE ROLE dlq_payloads NOLOGIN;
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
    NULL;
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_payloads') THEN
        GRANT SELECT ON failed_payloads TO dlq_payloads;
    END IF;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0004_failed_payloads') ON CONFLICT DO NOTHING;

COMMIT;
