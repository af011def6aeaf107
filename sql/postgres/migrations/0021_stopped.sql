-- Consumers with our library that nobody pulls from. Idempotent.

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
    'Consumers that published totals and that nobody pulls from, at the latest evaluation of the alerts.';
COMMENT ON COLUMN stopped_consumers.consumer IS '<stream>/<durable>';
COMMENT ON COLUMN stopped_consumers.reason IS 'why its service gets no events';
COMMENT ON COLUMN stopped_consumers.waiting_count IS 'waiting events';
COMMENT ON COLUMN stopped_consumers.least_count IS 'smallest number of waiting events since then';
COMMENT ON COLUMN stopped_consumers.since IS 'the first evaluation with this state';

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
