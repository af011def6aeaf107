-- Erasures of a tenant: which messages of the log must never be stored again. Only positions in the
-- log, no content. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.erasures (
    id            UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_hash   TEXT NOT NULL,
    stream        TEXT NOT NULL,
    last_sequence BIGINT NOT NULL,
    requested_by  TEXT NOT NULL,
    reason        TEXT NOT NULL,
    begun_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    finished_at   TIMESTAMPTZ
);
COMMENT ON TABLE erasures IS 'One row per erasure; a rerun continues an unfinished one.';
COMMENT ON COLUMN erasures.tenant_hash IS
    'SHA-256 of the tenant''s id, keyed with DLQ_REDACTION_KEY if set; the id itself is not stored';
COMMENT ON COLUMN erasures.last_sequence IS
    'last sequence of the stream at that time: later failures of the tenant are stored';
COMMENT ON COLUMN erasures.requested_by IS 'name of the person, not verified';
COMMENT ON COLUMN erasures.finished_at IS 'null: some data may still exist';

CREATE TABLE IF NOT EXISTS dlq.erased_messages (
    life         TEXT NOT NULL,
    dlq_sequence BIGINT NOT NULL,
    published_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (life, dlq_sequence, published_at)
);
COMMENT ON TABLE erased_messages IS
    'Tombstones: erased messages, which no drain, repair or refill stores or reports as a gap.';
COMMENT ON COLUMN erased_messages.life IS 'stream and its creation: an epoch without its fork';

INSERT INTO schema_migrations (name) VALUES ('0010_erasures') ON CONFLICT DO NOTHING;

COMMIT;
