-- Redrives without progress. PostgreSQL, on `redrives` and `redrive_batches`.
--
-- Grain: one row per batch, ended or not, whose oldest planned or published redrive is more than ten
-- minutes old, the oldest first. The next redrive continues such a batch.
--   planned_count    not published yet
--   published_count  published, without an answer
--   oldest_at        when the oldest of these was published, else when the batch was created
SELECT
    b.id AS batch_id,
    b.state,
    b.trigger,
    b.requested_by,
    b.reason,
    COUNT(*) FILTER (WHERE r.state = 'planned') AS planned_count,
    COUNT(*) FILTER (WHERE r.state = 'published') AS published_count,
    MIN(COALESCE(r.published_at, b.created_at)) AS oldest_at
FROM dlq.redrive_batches AS b
INNER JOIN dlq.redrives AS r ON r.batch_id = b.id
WHERE r.state IN ('planned', 'published')
GROUP BY b.id
HAVING MIN(COALESCE(r.published_at, b.created_at)) < NOW() - INTERVAL '10 minutes'
ORDER BY oldest_at
