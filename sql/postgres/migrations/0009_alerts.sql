-- Alerts: current and past ones, their messages, and the state of the servers at each evaluation.
-- Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.alerts (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule          TEXT NOT NULL,
    scope         TEXT NOT NULL,
    subject       TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    severity      TEXT NOT NULL,
    value         DOUBLE PRECISION NOT NULL,
    above         DOUBLE PRECISION NOT NULL,
    failure_count BIGINT,
    since         TIMESTAMPTZ NOT NULL,
    sample_id     UUID,
    detail        TEXT NOT NULL,
    started_at    TIMESTAMPTZ NOT NULL,
    fired_at      TIMESTAMPTZ,
    seen_at       TIMESTAMPTZ NOT NULL,
    told_at       TIMESTAMPTZ,
    told_count    INTEGER NOT NULL DEFAULT 0,
    acked_at      TIMESTAMPTZ,
    acked_by      TEXT,
    ack_reason    TEXT,
    resolved_at   TIMESTAMPTZ
);
CREATE UNIQUE INDEX IF NOT EXISTS alerts_live ON alerts (rule, scope, subject)
    WHERE state <> 'resolved';
CREATE INDEX IF NOT EXISTS alerts_started_at ON alerts (started_at);

COMMENT ON TABLE alerts IS
    'One row per episode of an alert: a rule''s condition held for a subject. Written by evaluate_alerts and dlq alerts ack.';
COMMENT ON COLUMN alerts.rule IS 'name of the rule in the alert file';
COMMENT ON COLUMN alerts.scope IS 'the override of the rule that matched; else all';
COMMENT ON COLUMN alerts.subject IS 'a service, a stream or a batch; empty: everything';
COMMENT ON COLUMN alerts.state IS 'pending (not long enough yet) | firing | resolved';
COMMENT ON COLUMN alerts.value IS 'the latest value while the condition held, in the unit of the rule';
COMMENT ON COLUMN alerts.above IS 'the exceeded threshold';
COMMENT ON COLUMN alerts.failure_count IS 'number of failures at the latest evaluation';
COMMENT ON COLUMN alerts.since IS 'when the problem began';
COMMENT ON COLUMN alerts.sample_id IS 'one of the failures, for dlq show';
COMMENT ON COLUMN alerts.detail IS 'details as text, redacted';
COMMENT ON COLUMN alerts.started_at IS 'first evaluation at which the condition held';
COMMENT ON COLUMN alerts.fired_at IS 'when it had held long enough';
COMMENT ON COLUMN alerts.seen_at IS 'last evaluation at which the condition held';
COMMENT ON COLUMN alerts.told_at IS 'when the last message about it was written';
COMMENT ON COLUMN alerts.told_count IS 'number of messages about it';
COMMENT ON COLUMN alerts.acked_by IS 'who takes care of it (not verified): no more reminders';

CREATE TABLE IF NOT EXISTS dlq.alert_messages (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         TEXT NOT NULL CHECK (kind IN ('firing', 'reminder', 'resolved')),
    alert_ids    BIGINT[] NOT NULL,
    channel      TEXT NOT NULL,
    title        TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL,
    try_count    INTEGER NOT NULL DEFAULT 0,
    delivered_at TIMESTAMPTZ,
    given_up_at  TIMESTAMPTZ
);
CREATE INDEX IF NOT EXISTS alert_messages_waiting ON alert_messages (id)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;
COMMENT ON TABLE alert_messages IS
    'The outbox of alerts: one row per message and channel, written before sending.';

CREATE TABLE IF NOT EXISTS dlq.stream_samples (
    at             TIMESTAMPTZ NOT NULL,
    role           TEXT NOT NULL,
    stream         TEXT NOT NULL,
    created        TIMESTAMPTZ,
    first_sequence BIGINT,
    last_sequence  BIGINT,
    message_count  BIGINT,
    size_bytes     BIGINT,
    max_messages   BIGINT,
    max_bytes      BIGINT,
    problem        TEXT,
    PRIMARY KEY (role, at)
);
COMMENT ON TABLE stream_samples IS
    'State of the streams at each evaluation of the alerts; kept for seven days.';
COMMENT ON COLUMN stream_samples.role IS 'log | events | totals';
COMMENT ON COLUMN stream_samples.last_sequence IS 'last sequence; for the log: of its own subjects';
COMMENT ON COLUMN stream_samples.max_messages IS 'null: no limit';
COMMENT ON COLUMN stream_samples.problem IS 'why it cannot be read or written; null: it can';

CREATE TABLE IF NOT EXISTS dlq.consumer_samples (
    at                    TIMESTAMPTZ NOT NULL,
    stream                TEXT NOT NULL,
    consumer              TEXT NOT NULL,
    acknowledged_sequence BIGINT NOT NULL,
    PRIMARY KEY (stream, consumer, at)
);
COMMENT ON TABLE consumer_samples IS
    'Acknowledgement positions of consumers that fail and publish no totals: they show whether these make progress.';

INSERT INTO schema_migrations (name) VALUES ('0009_alerts') ON CONFLICT DO NOTHING;

COMMIT;
