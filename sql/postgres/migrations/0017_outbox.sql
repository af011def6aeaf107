-- The cap of a case, as the log says it; and redrives that were left planned in a batch that is over,
-- which held their failures for ever. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events ADD COLUMN IF NOT EXISTS redrive_cap INTEGER;
COMMENT ON COLUMN failed_events.redrive_cap IS
    'redrives without success after which it is parked, as the last one that was published has it; null is 3';

UPDATE redrives AS r
SET state = 'cancelled', state_reason = 'its batch had ended without it', ended_at = now()
FROM redrive_batches AS b
WHERE b.id = r.batch_id
    AND r.state = 'planned'
    AND b.state IN ('done', 'aborted', 'cancelled');

INSERT INTO schema_migrations (name) VALUES ('0017_outbox') ON CONFLICT DO NOTHING;

COMMIT;
