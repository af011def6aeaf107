-- How each service is doing: its failures, and its failure rate where its totals are known.
--
-- Grain: one row per service that failed or that published totals. Parameter: $now.
--   service                  consumer_service, else source_service
--   failure_count_1h, failure_count_24h, failure_count   cases, by dlq_timestamp
--   critical_count_1h, critical_count_24h                of the critical family (`error_classes`)
--   open_count               pending, retried or parked
--   open_share               open_count / failure_count, 0 to 1; null without failures
--   oldest_open_age_seconds  by dlq_timestamp; null where nothing is open
--   has_totals               whether its consumers' counters are known. Without them nothing is
--                            known about successes, and all that follows is null
--   handled_count, succeeded_count, dead_lettered_count  messages, as long as the lake remembers
--   handled_count_24h, succeeded_count_24h, dead_lettered_count_24h
--   failure_rate_24h         dead-lettered / (succeeded + dead-lettered), 0 to 1; null where
--                            nothing was finished
--   failure_rate_24h_low, failure_rate_24h_high          its Wilson 95 % interval
WITH failed AS (
    SELECT
        c.service,
        COUNT(*) FILTER (WHERE c.opened_at > CAST($now AS TIMESTAMPTZ) - INTERVAL '1' HOUR)
            AS failure_count_1h,
        COUNT(*) FILTER (WHERE c.opened_at > CAST($now AS TIMESTAMPTZ) - INTERVAL '24' HOUR)
            AS failure_count_24h,
        COUNT(*) AS failure_count,
        COUNT(e.family) FILTER (WHERE c.opened_at > CAST($now AS TIMESTAMPTZ) - INTERVAL '1' HOUR)
            AS critical_count_1h,
        COUNT(e.family) FILTER (WHERE c.opened_at > CAST($now AS TIMESTAMPTZ) - INTERVAL '24' HOUR)
            AS critical_count_24h,
        COUNT(*) FILTER (WHERE c.cause = 'open') AS open_count,
        MIN(c.opened_at) FILTER (WHERE c.cause = 'open') AS oldest_open_at
    FROM cases AS c
    LEFT JOIN error_classes AS e ON e.error_class = c.error_class AND e.family = 'critical'
    GROUP BY c.service
),

traffic AS (
    SELECT
        *,
        published_at > CAST($now AS TIMESTAMPTZ) - INTERVAL '24' HOUR AS is_recent
    FROM service_traffic
),

totals AS (
    SELECT
        service,
        CAST(SUM(handled) AS BIGINT) AS handled_count,
        CAST(SUM(succeeded) AS BIGINT) AS succeeded_count,
        CAST(SUM(dead_lettered) AS BIGINT) AS dead_lettered_count,
        CAST(SUM(CASE WHEN is_recent THEN handled ELSE 0 END) AS BIGINT) AS handled_count_24h,
        CAST(SUM(CASE WHEN is_recent THEN succeeded ELSE 0 END) AS BIGINT) AS succeeded_count_24h,
        CAST(SUM(CASE WHEN is_recent THEN dead_lettered ELSE 0 END) AS BIGINT)
            AS dead_lettered_count_24h
    FROM traffic
    GROUP BY service
),

rates AS (
    SELECT
        *,
        dead_lettered_count_24h / n AS p,
        1.959963984540054 * 1.959963984540054 AS z2
    FROM (
        SELECT
            *,
            CAST(NULLIF(succeeded_count_24h + dead_lettered_count_24h, 0) AS DOUBLE) AS n
        FROM totals
    ) AS finished
)

SELECT
    COALESCE(f.service, r.service) AS service,
    COALESCE(f.failure_count_1h, 0) AS failure_count_1h,
    COALESCE(f.failure_count_24h, 0) AS failure_count_24h,
    COALESCE(f.failure_count, 0) AS failure_count,
    COALESCE(f.critical_count_1h, 0) AS critical_count_1h,
    COALESCE(f.critical_count_24h, 0) AS critical_count_24h,
    COALESCE(f.open_count, 0) AS open_count,
    CAST(f.open_count AS DOUBLE) / f.failure_count AS open_share,
    DATE_DIFF('second', f.oldest_open_at, CAST($now AS TIMESTAMPTZ)) AS oldest_open_age_seconds,
    r.service IS NOT NULL AS has_totals,
    r.handled_count,
    r.succeeded_count,
    r.dead_lettered_count,
    r.handled_count_24h,
    r.succeeded_count_24h,
    r.dead_lettered_count_24h,
    r.p AS failure_rate_24h,
    (r.p + r.z2 / (2 * r.n) - SQRT(r.z2 * (r.p * (1 - r.p) / r.n + r.z2 / (4 * r.n * r.n))))
    / (1 + r.z2 / r.n) AS failure_rate_24h_low,
    (r.p + r.z2 / (2 * r.n) + SQRT(r.z2 * (r.p * (1 - r.p) / r.n + r.z2 / (4 * r.n * r.n))))
    / (1 + r.z2 / r.n) AS failure_rate_24h_high
FROM failed AS f
FULL OUTER JOIN rates AS r ON r.service = f.service
ORDER BY failure_count_24h DESC, service
