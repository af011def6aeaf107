-- Services that fail all their messages. PostgreSQL; reads `scoped_failures`, `scopes`, `clock` and
-- `settings`.
--
-- Grain: one row per service that failed in the window, unless only in muted groups. The owner is
-- that of its latest failure.
--   value   lower bound of Wilson's 95 % interval of the failed share, if none succeeded: of the
--           handler calls, if its consumers' totals are known; else of the failures, if its
--           consumers acknowledged nothing. 0 if some succeeded or there are fewer than
--           settings.least_count; null if unknown, also if there are fewer because a consumer of
--           the service stopped.
--   detail  the figures behind it; the other columns: docs/alerts.md
WITH counted AS (
    SELECT
        t.service,
        t.consumer,
        t.started_at,
        t.published_at,
        t.handled - LAG(t.handled, 1, CASE WHEN t.started_at > w.begins_at THEN 0::bigint END)
            OVER one_life AS handled,
        t.succeeded - LAG(t.succeeded, 1, CASE WHEN t.started_at > w.begins_at THEN 0::bigint END)
            OVER one_life AS succeeded
    FROM dlq.service_totals AS t
    CROSS JOIN (
        SELECT n.drained_until - r.window_minutes * INTERVAL '1 minute' AS begins_at
        FROM clock AS n
        CROSS JOIN settings AS r
    ) AS w
    WHERE t.published_at > w.begins_at - INTERVAL '30 minutes'
    WINDOW one_life AS (
        PARTITION BY t.service, t.consumer, t.started_at ORDER BY t.totals_sequence
    )
),

totals AS (
    SELECT
        c.service,
        SUM(c.handled)::float8 AS handled,
        SUM(c.succeeded)::float8 AS succeeded
    FROM counted AS c
    CROSS JOIN clock AS n
    CROSS JOIN settings AS r
    WHERE c.published_at > n.drained_until - r.window_minutes * INTERVAL '1 minute'
    GROUP BY c.service
),

failed AS (
    SELECT
        f.service,
        COUNT(*) AS failure_count,
        MIN(f.opened_at) AS since,
        (ARRAY_AGG(f.failure_id::text ORDER BY f.opened_at DESC, f.failure_id))[1] AS sample_id,
        (ARRAY_AGG(f.owner ORDER BY f.opened_at DESC, f.failure_id))[1] AS owner,
        (ARRAY_AGG(f.failure_id::text) FILTER (WHERE NOT f.alert_sent))[1:500] AS unmarked_ids
    FROM scoped_failures AS f
    CROSS JOIN clock AS n
    CROSS JOIN settings AS r
    WHERE
        f.opened_at > n.drained_until - r.window_minutes * INTERVAL '1 minute'
        AND f.opened_at <= n.now  -- a clock that is ahead would make it last
    GROUP BY f.service
),

-- Services that failed in muted groups. Their totals do not know groups: if nothing else failed, the
-- service is left out.
muted AS (
    SELECT DISTINCT f.service
    FROM dlq.failures AS f
    INNER JOIN dlq.group_care AS g ON g.group_id = f.group_id AND g.is_muted
    CROSS JOIN clock AS n
    CROSS JOIN settings AS r
    WHERE
        f.opened_at > n.drained_until - r.window_minutes * INTERVAL '1 minute'
        AND f.opened_at <= n.now
),

-- Of services without totals: did any of their consumers acknowledge anything?
progress AS (
    SELECT
        k.service,
        BOOL_AND(k.is_known) AS is_known,
        BOOL_OR(k.has_moved) AS has_moved
    FROM (
        SELECT
            f.service,
            COALESCE(MAX(s.at) - MIN(s.at) >= INTERVAL '1 minute', FALSE) AS is_known,
            MAX(s.acknowledged_sequence) > MIN(s.acknowledged_sequence) AS has_moved
        FROM (
            SELECT DISTINCT
                f.service,
                f.original_stream,
                f.consumer_name
            FROM scoped_failures AS f
            CROSS JOIN clock AS n
            CROSS JOIN settings AS r
            WHERE
                f.opened_at > n.drained_until - r.window_minutes * INTERVAL '1 minute'
                AND f.opened_at <= n.now
        ) AS f
        CROSS JOIN clock AS n
        CROSS JOIN settings AS r
        LEFT JOIN dlq.consumer_samples AS s
            ON
                s.stream = f.original_stream
                AND s.consumer = f.consumer_name
                AND s.at > n.drained_until - r.window_minutes * INTERVAL '1 minute'
        GROUP BY f.service, f.original_stream, f.consumer_name
    ) AS k
    GROUP BY k.service
),

stopped AS (
    SELECT
        c.service,
        MIN(c.since) AS since
    FROM dlq.stopped_consumers AS c
    GROUP BY c.service
),

judged AS (
    SELECT
        COALESCE(f.service, t.service, c.service) AS service,
        c.service IS NOT NULL AS is_stopped,
        t.service IS NOT NULL AS has_totals,
        COALESCE(CASE WHEN t.service IS NULL THEN f.failure_count ELSE t.handled END, 0) AS attempts,
        CASE
            WHEN t.service IS NOT NULL THEN t.succeeded = 0
            WHEN p.is_known THEN NOT p.has_moved
        END AS is_stuck,
        COALESCE(f.failure_count, 0) AS failure_count,
        COALESCE(f.since, c.since, n.drained_until - r.window_minutes * INTERVAL '1 minute') AS since,
        f.sample_id,
        f.owner,
        f.unmarked_ids,
        r.least_count,
        r.window_minutes
    FROM failed AS f
    FULL OUTER JOIN totals AS t ON t.service = f.service
    FULL OUTER JOIN stopped AS c ON c.service = COALESCE(f.service, t.service)
    LEFT JOIN progress AS p ON p.service = f.service
    CROSS JOIN clock AS n
    CROSS JOIN settings AS r
    WHERE
        f.service IS NOT NULL
        OR (
            (t.handled > t.succeeded OR c.service IS NOT NULL)
            AND COALESCE(t.service, c.service) NOT IN (SELECT m.service FROM muted AS m)
        )
)

SELECT
    s.scope,
    j.service AS subject,
    CASE
        WHEN j.is_stopped AND j.attempts < j.least_count AND COALESCE(j.is_stuck, TRUE) THEN NULL
        WHEN j.attempts < j.least_count OR NOT j.is_stuck THEN 0
        -- The share is 1, so Wilson's lower bound is n / (n + z²).
        WHEN j.is_stuck THEN j.attempts / (j.attempts + 1.959963984540054 * 1.959963984540054)
    END::float8 AS value,
    s.above,
    j.failure_count,
    j.since,
    j.sample_id,
    CASE
        WHEN j.is_stopped AND j.attempts < j.least_count AND COALESCE(j.is_stuck, TRUE)
            THEN 'its consumer stopped, so whether it fails is not known; ' || j.attempts || ' calls'
        WHEN j.has_totals AND j.is_stuck
            THEN 'none of ' || j.attempts || ' handler calls succeeded'
        WHEN j.has_totals THEN 'some handler calls succeeded'
        WHEN j.is_stuck
            THEN j.attempts || ' failures, and its consumer acknowledged nothing'
        WHEN NOT j.is_stuck THEN j.attempts || ' failures, and its consumer gets on'
        ELSE j.attempts || ' failures; without totals its successes are not known'
    END || ' in ' || j.window_minutes || ' minutes' AS detail,
    j.unmarked_ids,
    FALSE AS is_told
FROM judged AS j
CROSS JOIN LATERAL (
    SELECT
        p.scope,
        p.above
    FROM scopes AS p
    WHERE j.service LIKE p.service AND p.tenant = '%' AND COALESCE(j.owner, '') LIKE p.owner
    ORDER BY p.position
    LIMIT 1
) AS s
