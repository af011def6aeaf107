-- The cap of a case, from the log. Also cancels redrives that stayed planned in a finished batch
-- and blocked their failures. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS redrive_cap INTEGER;
COMMENT ON COLUMN failed_events.redrive_cap IS
    'failed redrives after which it is parked, from the latest published redrive; null: 3';

UPDATE redrives AS r
SET state = 'cancelled', state_reason = 'its batch had ended without it', ended_at = now()
FROM redrive_batches AS b
WHERE b.id = r.batch_id
    AND r.state = 'planned'
    AND b.state IN ('done', 'aborted', 'cancelled');

INSERT INTO schema_migrations (name) VALUES ('0017_outbox') ON CONFLICT DO NOTHING;

COMMIT;
