-- Erasures of a tenant: which messages of the log must never be stored again. Places in the log
-- only, nothing that the messages said. Idempotent.

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
COMMENT ON TABLE erasures IS 'One row per erasure; a rerun goes on with one that is not finished.';
COMMENT ON COLUMN erasures.tenant_hash IS
    'SHA-256 of the tenant''s id, keyed with DLQ_REDACTION_KEY where there is one; the id is not kept';
COMMENT ON COLUMN erasures.last_sequence IS
    'last sequence of the stream then: what the tenant fails on later is stored';
COMMENT ON COLUMN erasures.requested_by IS 'who, as they say themselves';
COMMENT ON COLUMN erasures.finished_at IS 'null: something of it may still be somewhere';

CREATE TABLE IF NOT EXISTS dlq.erased_messages (
    life         TEXT NOT NULL,
    dlq_sequence BIGINT NOT NULL,
    published_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (life, dlq_sequence, published_at)
);
COMMENT ON TABLE erased_messages IS
    'Tombstones: messages that no drain, repair or refill stores, and that are no gap.';
COMMENT ON COLUMN erased_messages.life IS 'stream and its creation: an epoch without its fork';

INSERT INTO schema_migrations (name) VALUES ('0010_erasures') ON CONFLICT DO NOTHING;

COMMIT;
