-- Redrives that were left planned in a batch that is over: they held their failures for ever.
-- Idempotent.

BEGIN;

UPDATE redrives AS r
SET state = 'cancelled', state_reason = 'its batch had ended without it', ended_at = now()
FROM redrive_batches AS b
WHERE b.id = r.batch_id
    AND r.state = 'planned'
    AND b.state IN ('done', 'aborted', 'cancelled');

INSERT INTO schema_migrations (name) VALUES ('0017_outbox') ON CONFLICT DO NOTHING;

COMMIT;
