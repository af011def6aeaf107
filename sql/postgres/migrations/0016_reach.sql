-- The consumers of redrives: the one that a failure was handed to, and those that would get
-- nothing. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS handed_to TEXT;
COMMENT ON COLUMN failed_events.handed_to IS
    '<stream>/<durable> of its latest redrive; the next redrives go there too';

CREATE TABLE IF NOT EXISTS dlq.unreached_consumers (
    consumer TEXT NOT NULL,
    subject  TEXT NOT NULL,
    reason   TEXT NOT NULL,
    is_known BOOLEAN NOT NULL,
    since    TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (consumer, subject)
);
COMMENT ON TABLE unreached_consumers IS
    'Consumers of pending failures that would get no redrive, at the latest evaluation of the alerts.';
COMMENT ON COLUMN unreached_consumers.consumer IS '<stream>/<durable>';
COMMENT ON COLUMN unreached_consumers.subject IS 'subject of the events that failed there';
COMMENT ON COLUMN unreached_consumers.reason IS 'why it gets no events, or why this is unknown';
COMMENT ON COLUMN unreached_consumers.is_known IS 'false: unknown';
COMMENT ON COLUMN unreached_consumers.since IS 'the first evaluation with this state';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights
        FROM (VALUES ('dlq_analyst', 'SELECT'), ('dlq_alerts', 'SELECT, INSERT, UPDATE, DELETE'))
            AS g (role_name, rights)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON unreached_consumers TO %I', given.rights, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0016_reach') ON CONFLICT DO NOTHING;

COMMIT;
