-- Replays: events of an events' stream that are published again for one consumer, although they did
-- not fail. They use the batches and the outbox of redrives. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE redrive_batches ADD COLUMN IF NOT EXISTS kind TEXT NOT NULL DEFAULT 'redrive'
    CHECK (kind IN ('redrive', 'replay'));
COMMENT ON COLUMN redrive_batches.kind IS
    'redrive: of failures; replay: of events from the events'' stream';

ALTER TABLE redrives ADD COLUMN IF NOT EXISTS is_replay BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN redrives.is_replay IS 'whether failure_id is the id of a replay, not of a failure';

CREATE TABLE IF NOT EXISTS dlq.replays (
    id           UUID PRIMARY KEY,
    replay_of    UUID NOT NULL,
    consumer     TEXT NOT NULL,
    service      TEXT,
    stream       TEXT NOT NULL,
    sequence     BIGINT NOT NULL,
    timestamp_ns BIGINT,
    announced    TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS replays_replay_of ON dlq.replays (replay_of);
CREATE INDEX IF NOT EXISTS failed_events_root_failure_id ON dlq.failed_events (root_failure_id)
    WHERE root_failure_id IS NOT NULL;
COMMENT ON TABLE replays IS
    'Replayed events: one row per batch and event. Their attempts are in redrives, with id as failure_id.';
COMMENT ON COLUMN replays.id IS 'stands for a root failure in the headers and in the log';
COMMENT ON COLUMN replays.replay_of IS
    'failure id that the event would have at the consumer; the same for all copies of the event';
COMMENT ON COLUMN replays.consumer IS '<stream>/<durable> that the event is addressed to';
COMMENT ON COLUMN replays.service IS 'service of the consumer; null if rebuilt from the log';
COMMENT ON COLUMN replays.timestamp_ns IS
    'server time of the event, nanoseconds since 1970; null if rebuilt from the log';
COMMENT ON COLUMN replays.announced IS
    'its redrive.published in the log: attempts by id, as JSON; as in failed_events';

CREATE OR REPLACE VIEW dlq.redrive_roots WITH (security_invoker = true) AS
SELECT
    f.id,
    f.status,
    f.opening,
    f.dlq_sequence,
    f.published_at,
    f.dlq_timestamp,
    f.dlq_reason,
    f.original_stream,
    f.consumer_name,
    service(f)::VARCHAR AS service,
    f.error_type,
    f.error_message,
    NULL::UUID AS replay_of,
    NULL::TEXT AS event_stream,
    NULL::BIGINT AS event_sequence,
    NULL::BIGINT AS event_timestamp_ns
FROM failed_events AS f
UNION ALL
SELECT
    p.id,
    'pending'::VARCHAR,
    1,
    NULL::BIGINT,
    to_timestamp(p.timestamp_ns / 1e9),
    to_timestamp(p.timestamp_ns / 1e9),
    NULL::VARCHAR,
    NULL::VARCHAR,
    NULL::VARCHAR,
    coalesce(p.service, '')::VARCHAR,
    'replay'::VARCHAR,
    ''::TEXT,
    p.replay_of,
    p.stream,
    p.sequence,
    p.timestamp_ns
FROM replays AS p;
COMMENT ON VIEW redrive_roots IS
    'What a row of redrives is about: a failure, or a replayed event, which always waits.';

CREATE OR REPLACE VIEW dlq.answered_redrives WITH (security_invoker = true) AS
SELECT
    r.id AS redrive_id,
    r.failure_id,
    r.attempt,
    r.batch_id,
    r.group_id,
    r.published_at,
    r.ended_at,
    r.state = 'succeeded' AS has_succeeded
FROM redrives AS r
WHERE r.state IN ('succeeded', 'failed_again')
    AND NOT r.is_replay;
COMMENT ON VIEW answered_redrives IS
    'One row per redrive of a failure that succeeded or failed again; the mean of has_succeeded is the success rate.';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, t.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'replays'),
            ('dlq_drain', 'SELECT', 'redrive_roots'),
            ('dlq_analyst', 'SELECT', 'replays redrive_roots'),
            ('dlq_analyst', 'SELECT (kind)', 'redrive_batches'),
            ('dlq_auditor', 'SELECT', 'replays')
        ) AS g (role_name, rights, table_names)
        CROSS JOIN unnest(string_to_array(g.table_names, ' ')) AS t (table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON dlq.%I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0027_replays') ON CONFLICT DO NOTHING;

COMMIT;
