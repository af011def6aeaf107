-- The redrives that ended, by time: what the policy learns from. Idempotent.

BEGIN;

CREATE INDEX IF NOT EXISTS redrives_ended ON redrives (ended_at)
    WHERE state IN ('succeeded', 'failed_again');

INSERT INTO schema_migrations (name) VALUES ('0008_redrive_history') ON CONFLICT DO NOTHING;

COMMIT;
