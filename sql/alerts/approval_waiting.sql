-- Redrives that wait for approval. PostgreSQL; reads `scopes` and `clock`.
--
-- Grain: one row per batch that waits.
--   value          hours since it was requested
--   subject        the batch
--   failure_count  its failures: until the decision no other redrive takes them
--   detail         how many, who requested it and why; the other columns: docs/alerts.md
SELECT
    p.scope,
    b.id::text AS subject,
    EXTRACT(EPOCH FROM n.now - b.created_at)::float8 / 3600 AS value,
    p.above,
    b.planned::bigint AS failure_count,
    b.created_at AS since,
    NULL::text AS sample_id,
    b.planned || CASE b.planned WHEN 1 THEN ' redrive' ELSE ' redrives' END
    || ', asked for by ' || b.requested_by || ': ' || b.reason AS detail,
    NULL::text [] AS unmarked_ids,
    FALSE AS is_told
FROM dlq.redrive_batches AS b
CROSS JOIN clock AS n
INNER JOIN scopes AS p ON p.scope = 'all'
WHERE b.state = 'awaiting_approval'
