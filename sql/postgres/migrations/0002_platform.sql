-- The platform adds: the position of a failure in the log, its group, its redrives; the drain's
-- checkpoints; the outbox of redrives; the consumers' totals. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events
    ADD COLUMN IF NOT EXISTS epoch               TEXT,
    ADD COLUMN IF NOT EXISTS dlq_sequence        BIGINT,
    ADD COLUMN IF NOT EXISTS published_at        TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS seen_count          INTEGER NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS original_stream     VARCHAR(255),
    ADD COLUMN IF NOT EXISTS original_sequence   BIGINT,
    ADD COLUMN IF NOT EXISTS consumer_service    VARCHAR(100),
    ADD COLUMN IF NOT EXISTS consumer_name       VARCHAR(255),
    ADD COLUMN IF NOT EXISTS handler             VARCHAR(255),
    ADD COLUMN IF NOT EXISTS attempts            JSONB,
    ADD COLUMN IF NOT EXISTS group_id            VARCHAR(16),
    ADD COLUMN IF NOT EXISTS parent_id           VARCHAR(16),
    ADD COLUMN IF NOT EXISTS fingerprint_version SMALLINT,
    ADD COLUMN IF NOT EXISTS root_failure_id     UUID,
    ADD COLUMN IF NOT EXISTS redrive_count       INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS redrive_trigger     VARCHAR(20),
    ADD COLUMN IF NOT EXISTS resolution_cause    VARCHAR(50),
    ADD COLUMN IF NOT EXISTS discarded_at        TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS payload_encoding    VARCHAR(20) NOT NULL DEFAULT 'json',
    ADD COLUMN IF NOT EXISTS parse_error         TEXT,
    ADD COLUMN IF NOT EXISTS clamped             TEXT;

COMMENT ON COLUMN failed_events.epoch IS 'stream, its creation and fork: sequences are unique within it';
COMMENT ON COLUMN failed_events.dlq_sequence IS 'sequence of the dead letter in its stream';
COMMENT ON COLUMN failed_events.published_at IS 'server time of the dead letter';
COMMENT ON COLUMN failed_events.seen_count IS 'how often this failure was published as a dead letter';
COMMENT ON COLUMN failed_events.original_stream IS 'stream of the event';
COMMENT ON COLUMN failed_events.original_sequence IS 'sequence of the event in its stream';
COMMENT ON COLUMN failed_events.consumer_service IS 'service that failed on the event';
COMMENT ON COLUMN failed_events.consumer_name IS 'durable consumer that failed on the event';
COMMENT ON COLUMN failed_events.handler IS 'function that failed';
COMMENT ON COLUMN failed_events.attempts IS 'failed calls: array of at, error_type, error_message';
COMMENT ON COLUMN failed_events.group_id IS 'fingerprint of exceptions, frames and message';
COMMENT ON COLUMN failed_events.parent_id IS 'fingerprint of exceptions and frames only';
COMMENT ON COLUMN failed_events.fingerprint_version IS 'version of the fingerprint rules';
COMMENT ON COLUMN failed_events.root_failure_id IS 'first failure of the chain, if a redrive failed again';
COMMENT ON COLUMN failed_events.redrive_count IS 'redrives that ended without success';
COMMENT ON COLUMN failed_events.redrive_trigger IS 'automatic | manual, of the latest redrive';
COMMENT ON COLUMN failed_events.resolution_cause IS 'automatic_redrive | manual_redrive | manual';
COMMENT ON COLUMN failed_events.discarded_at IS 'when it was discarded';
COMMENT ON COLUMN failed_events.payload_encoding IS 'encoding of the body in original_data: json | base64 | object | text';
COMMENT ON COLUMN failed_events.parse_error IS 'why the message could not be read as a dead letter';
COMMENT ON COLUMN failed_events.clamped IS 'comma-separated columns whose value was cut or changed to fit';

-- For the redriver and the operator: pending failures by group, oldest first.
CREATE INDEX IF NOT EXISTS failed_events_open ON failed_events (group_id, dlq_timestamp)
    WHERE status IN ('pending', 'retried', 'parked');
-- For recent failures and Grafana's time range.
CREATE INDEX IF NOT EXISTS failed_events_dlq_timestamp ON failed_events (dlq_timestamp);

CREATE TABLE IF NOT EXISTS dlq.drain_checkpoints (
    stream        TEXT PRIMARY KEY,
    epoch         TEXT NOT NULL,
    last_sequence BIGINT NOT NULL,
    updated_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE drain_checkpoints IS
    'Position in the log up to which failed_events is complete; written in the transaction that writes the rows.';

CREATE TABLE IF NOT EXISTS dlq.drain_epochs (
    epoch          TEXT PRIMARY KEY,
    stream         TEXT NOT NULL,
    created        TIMESTAMPTZ NOT NULL,
    fork           INTEGER NOT NULL,
    start_sequence BIGINT NOT NULL,
    reason         TEXT NOT NULL,
    started_at     TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE drain_epochs IS
    'Epochs of the dead-letter stream: first seen, recreated, or set back after a loss.';

CREATE TABLE IF NOT EXISTS dlq.drain_anchors (
    epoch        TEXT NOT NULL,
    sequence     BIGINT NOT NULL,
    timestamp_ns BIGINT NOT NULL,
    PRIMARY KEY (epoch, sequence)
);
COMMENT ON TABLE drain_anchors IS
    'The last message of each batch: if the stream has another message there, it was set back.';

CREATE TABLE IF NOT EXISTS dlq.stream_gaps (
    epoch          TEXT NOT NULL,
    first_sequence BIGINT NOT NULL,
    last_sequence  BIGINT NOT NULL,
    reason         TEXT NOT NULL,
    is_certain     BOOLEAN NOT NULL,
    found_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (epoch, first_sequence)
);
COMMENT ON TABLE stream_gaps IS 'Sequences of the log that were lost before the drain could read them.';

CREATE TABLE IF NOT EXISTS dlq.redrive_batches (
    id           UUID PRIMARY KEY,
    trigger      TEXT NOT NULL CHECK (trigger IN ('automatic', 'manual')),
    requested_by TEXT NOT NULL,
    reason       TEXT NOT NULL,
    selection    JSONB NOT NULL,
    state        TEXT NOT NULL CHECK (state IN
                 ('planned', 'awaiting_approval', 'running', 'paused', 'done', 'aborted', 'cancelled')),
    state_reason TEXT,
    planned      INTEGER NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    ended_at     TIMESTAMPTZ
);
COMMENT ON TABLE redrive_batches IS 'A batch of redrives as requested; it does not change. Its redrives are in the table redrives.';

CREATE TABLE IF NOT EXISTS dlq.redrives (
    id           UUID PRIMARY KEY,
    failure_id   UUID NOT NULL,
    attempt      INTEGER NOT NULL,
    batch_id     UUID NOT NULL REFERENCES redrive_batches,
    group_id     VARCHAR(16),
    subject      TEXT NOT NULL,
    addressed_to TEXT,
    state        TEXT NOT NULL CHECK (state IN ('planned', 'published', 'succeeded', 'failed_again',
                 'unroutable', 'refused', 'expired', 'outcome_unknown', 'cancelled')),
    state_reason TEXT,
    published_at TIMESTAMPTZ,
    ended_at     TIMESTAMPTZ,
    UNIQUE (failure_id, attempt)
);
CREATE INDEX IF NOT EXISTS redrives_unsettled ON redrives (batch_id, state)
    WHERE state IN ('planned', 'published');
COMMENT ON TABLE redrives IS 'The outbox: a row per attempt, written before anything is published.';

CREATE TABLE IF NOT EXISTS dlq.service_totals (
    totals_sequence BIGINT NOT NULL,
    published_at    TIMESTAMPTZ NOT NULL,
    service         TEXT NOT NULL,
    consumer        TEXT NOT NULL,
    started_at      TIMESTAMPTZ NOT NULL,
    handled         BIGINT NOT NULL,
    succeeded       BIGINT NOT NULL,
    retried         BIGINT NOT NULL,
    dead_lettered   BIGINT NOT NULL,
    skipped         BIGINT NOT NULL,
    PRIMARY KEY (service, consumer, started_at, totals_sequence)
);
COMMENT ON TABLE service_totals IS 'Samples of the consumers'' own counters since their start.';

INSERT INTO schema_migrations (name) VALUES ('0001_failed_events'), ('0002_platform')
    ON CONFLICT DO NOTHING;

COMMIT;
