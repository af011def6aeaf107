-- Consumers of ours that nobody pulls from. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.stopped_consumers (
    consumer      TEXT PRIMARY KEY,
    service       TEXT NOT NULL,
    reason        TEXT NOT NULL,
    waiting_count BIGINT NOT NULL,
    least_count   BIGINT NOT NULL,
    since         TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE stopped_consumers IS
    'Consumers that published totals and that nobody pulls from, as of the latest look of the alerts.';
COMMENT ON COLUMN stopped_consumers.consumer IS '<stream>/<durable>';
COMMENT ON COLUMN stopped_consumers.reason IS 'why no event gets to its service';
COMMENT ON COLUMN stopped_consumers.waiting_count IS 'events that wait for it';
COMMENT ON COLUMN stopped_consumers.least_count IS 'the fewest that waited since it was seen so';
COMMENT ON COLUMN stopped_consumers.since IS 'the first of the looks that saw it so';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights
        FROM (VALUES
            ('dlq_analyst', 'SELECT'),
            ('dlq_drain', 'SELECT'),
            ('dlq_alerts', 'SELECT, INSERT, UPDATE, DELETE')
        ) AS g (role_name, rights)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON stopped_consumers TO %I', given.rights, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0021_stopped') ON CONFLICT DO NOTHING;

COMMIT;
