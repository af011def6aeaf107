-- The latest batches of redrives, as requested. PostgreSQL, on `redrive_batches`.
--
-- Grain: one row per batch, newest first, at most 50.
SELECT
    created_at,
    trigger,
    requested_by,
    reason,
    planned,
    state,
    state_reason,
    ended_at
FROM dlq.redrive_batches
ORDER BY created_at DESC
LIMIT 50
