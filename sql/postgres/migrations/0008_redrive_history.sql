-- For the policy, which learns from ended redrives by time. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE INDEX IF NOT EXISTS redrives_ended ON redrives (ended_at)
    WHERE state IN ('succeeded', 'failed_again');

INSERT INTO schema_migrations (name) VALUES ('0008_redrive_history') ON CONFLICT DO NOTHING;

COMMIT;
