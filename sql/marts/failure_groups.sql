-- The groups: failures alike in type, frames and message, and how each stands.
--
-- Grain: one row per group_id. Parameter: $now.
--   group_id                 16 hexadecimal digits
--   parent_id                groups alike in type and frames
--   state                    resolved   nothing is open
--                            regressed  a case's first attempt came after the last resolution
--                            new        first seen less than 24 hours ago
--                            ongoing    else; the first that applies
--   error_class, template, frames, sample_failure_id   of the group's latest case
--   failure_count            cases
--   failure_count_24h        of the last 24 hours
--   first_seen_at            oldest dlq_timestamp, UTC
--   last_seen_at             newest dlq_timestamp, UTC
--   last_resolved_at         newest resolution, UTC, or null
--   services, consumers      names in alphabetical order, joined by ', '
--   tenant_count             distinct tenants
--   open_count               pending, retried or parked
--   resolved_count, parked_count, discarded_count
--   redrive_count            redrives that went out: published, or known to have ended in a handler
--   redrive_succeeded_count  of these, those that succeeded
WITH counted AS (
    SELECT
        c.group_id,
        MAX_BY(f.parent_id, c.log_position) AS parent_id,
        MAX_BY(f.error_class, c.log_position) AS error_class,
        MAX_BY(f.template, c.log_position) AS template,
        MAX_BY(f.frames, c.log_position) AS frames,
        MAX_BY(c.failure_id, c.log_position) AS sample_failure_id,
        COUNT(*) AS failure_count,
        COUNT(*) FILTER (WHERE c.opened_at > CAST($now AS TIMESTAMPTZ) - INTERVAL '24' HOUR)
            AS failure_count_24h,
        MIN(c.opened_at) AS first_seen_at,
        MAX(c.opened_at) AS last_seen_at,
        MAX(c.first_attempt_at) AS last_first_attempt_at,
        MAX(c.closed_at) FILTER (WHERE c.status = 'resolved') AS last_resolved_at,
        STRING_AGG(DISTINCT c.service, ', ' ORDER BY c.service) AS services,
        STRING_AGG(DISTINCT c.consumer_name, ', ' ORDER BY c.consumer_name) AS consumers,
        COUNT(DISTINCT c.tenant_id) AS tenant_count,
        COUNT(*) FILTER (WHERE c.cause = 'open') AS open_count,
        COUNT(*) FILTER (WHERE c.status = 'resolved') AS resolved_count,
        COUNT(*) FILTER (WHERE c.status = 'parked') AS parked_count,
        COUNT(*) FILTER (WHERE c.status = 'discarded') AS discarded_count
    FROM cases AS c
    INNER JOIN failures AS f ON f.failure_id = c.failure_id
    GROUP BY c.group_id
),

redriven AS (
    SELECT
        group_id,
        COUNT(*) AS redrive_count,
        COUNT(*) FILTER (WHERE outcome = 'succeeded') AS redrive_succeeded_count
    FROM redrives
    WHERE published_at IS NOT NULL OR outcome IN ('succeeded', 'failed_again')
    GROUP BY group_id
)

SELECT
    c.group_id,
    c.parent_id,
    CASE
        WHEN c.open_count = 0 THEN 'resolved'
        WHEN c.last_first_attempt_at > c.last_resolved_at THEN 'regressed'
        WHEN c.first_seen_at > CAST($now AS TIMESTAMPTZ) - INTERVAL '24' HOUR THEN 'new'
        ELSE 'ongoing'
    END AS state,
    c.error_class,
    c.template,
    c.frames,
    c.sample_failure_id,
    c.failure_count,
    c.failure_count_24h,
    c.first_seen_at,
    c.last_seen_at,
    c.last_resolved_at,
    c.services,
    c.consumers,
    c.tenant_count,
    c.open_count,
    c.resolved_count,
    c.parked_count,
    c.discarded_count,
    COALESCE(r.redrive_count, 0) AS redrive_count,
    COALESCE(r.redrive_succeeded_count, 0) AS redrive_succeeded_count
FROM counted AS c
LEFT JOIN redriven AS r ON r.group_id = c.group_id
ORDER BY c.failure_count DESC, c.group_id
