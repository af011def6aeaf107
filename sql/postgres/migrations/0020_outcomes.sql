-- Outcomes count only for redrives whose publishing is in the log. Idempotent.
--
-- Redrives of older versions are taken from the outbox. A redriven case without a row there (the
-- database was filled again from the lake) keeps null: its redrives are then recognised by the ids
-- of older versions.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'dlq.failed_events'::regclass AND attname = 'announced' AND NOT attisdropped
    ) THEN
        ALTER TABLE failed_events ADD COLUMN announced TEXT DEFAULT '{}';
        UPDATE failed_events SET announced = NULL WHERE status = 'retried' OR redrive_count > 0;
        UPDATE failed_events AS f SET announced = r.announced
        FROM (
            SELECT failure_id, json_object_agg(id, attempt)::text AS announced
            FROM redrives WHERE published_at IS NOT NULL GROUP BY failure_id
        ) AS r
        WHERE r.failure_id = f.id;
    END IF;
END $$;
COMMENT ON COLUMN failed_events.announced IS
    'redrives whose redrive.published is in the log: attempts by id, as JSON; null: unknown';

CREATE TABLE IF NOT EXISTS dlq.unfounded_outcomes (
    epoch        TEXT NOT NULL,
    dlq_sequence BIGINT NOT NULL,
    published_at TIMESTAMPTZ NOT NULL,
    kind         TEXT NOT NULL,
    failure_id   UUID NOT NULL,
    redrive_id   UUID NOT NULL,
    attempt      INTEGER NOT NULL,
    consumer     TEXT,
    at           TIMESTAMPTZ NOT NULL,
    reason       TEXT,
    letter_id    UUID,
    why          TEXT NOT NULL CHECK (why IN ('unannounced', 'not_addressee')),
    PRIMARY KEY (epoch, dlq_sequence)
);
COMMENT ON TABLE unfounded_outcomes IS
    'Outcomes of redrives that are not in the log. They change no case.';
COMMENT ON COLUMN unfounded_outcomes.failure_id IS 'the root failure, from the message';
COMMENT ON COLUMN unfounded_outcomes.consumer IS '<stream>/<durable> that reports, from the message';
COMMENT ON COLUMN unfounded_outcomes.letter_id IS 'failure id of the dead letter that names the redrive';
COMMENT ON COLUMN unfounded_outcomes.why IS
    'unannounced: no redrive.published has that id (it counts once one does); not_addressee: another consumer was addressed';
CREATE INDEX IF NOT EXISTS unfounded_outcomes_redrive_id ON dlq.unfounded_outcomes (redrive_id);
CREATE INDEX IF NOT EXISTS unfounded_outcomes_failure_id ON dlq.unfounded_outcomes (failure_id);

ALTER TABLE redrive_batches ADD COLUMN IF NOT EXISTS own_copy BOOLEAN NOT NULL DEFAULT TRUE;
COMMENT ON COLUMN redrive_batches.own_copy IS
    'whether the dead letter''s copy of an event may be published if the stream no longer has it';

DO $$
DECLARE
    given RECORD;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_analyst') THEN
        GRANT SELECT (own_copy) ON redrive_batches TO dlq_analyst;
    END IF;
    FOR given IN
        SELECT g.role_name, g.rights
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, DELETE'),
            ('dlq_maintenance', 'SELECT, DELETE'),
            ('dlq_analyst', 'SELECT')
        ) AS g (role_name, rights)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON unfounded_outcomes TO %I', given.rights, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0020_outcomes') ON CONFLICT DO NOTHING;

COMMIT;
