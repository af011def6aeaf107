-- The health of each service: its failures, and its failure rate if its totals are known.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per service that failed or that published totals.
--   service                  consumer_service, else source_service
--   score                    0 to 100, for display only:
--                            100 * (1 - max(traffic_part, critical_part, age_part))
--   traffic_part             0 to 0.5: burn_1h / 14.4, or without totals pressure / 4
--   critical_part            0.3 if there was a critical failure in the last hour, else 0
--   age_part                 0 to 0.2: age of the oldest open case / 24 h
--   alert                    page | ticket | none by the burn rates; null without totals
--   failure_count_1h, failure_count_24h, failure_count   cases, by dlq_timestamp
--   expected_count_1h        as in `spikes`
--   pressure                 log2((failure_count_1h + 1) / (expected_count_1h + 1)): 1 is twice the
--                            usual number, 2 four times
--   critical_count_1h, critical_count_24h                of the critical family (`error_classes`)
--   open_count               pending, retried or parked
--   open_share               open_count / failure_count, 0 to 1; null without failures
--   oldest_open_age_seconds  by dlq_timestamp, to the minute; null if nothing is open
--   p90_open_age_seconds     nine tenths of the open cases are younger, to the minute
--   has_totals               whether its consumers' counters are known. Without them successes are
--                            unknown, and all following columns are null
--   handled_count, succeeded_count, dead_lettered_count  messages, over the retention time of the
--                  lake
--   handled_count_24h, succeeded_count_24h, dead_lettered_count_24h  of the last 24 hours
--   failure_rate_24h         dead-lettered / (succeeded + dead-lettered), 0 to 1; null if no
--                            message was finished
--   failure_rate_24h_low, failure_rate_24h_high          its Wilson 95 % interval
--   burn_5m, burn_30m, burn_1h, burn_6h, burn_3d         failure rate of the window / the rate
--                            that the objective allows (`health_rules`); null as above. Page at
--                            > 14.4 over 1 h and 5 m or > 6 over 6 h and 30 m; ticket at > 1 over
--                            3 d and 6 h; only with 10 failures in the longer window
--   versions                 versions in its totals of the last hour, in alphabetical order, joined
--                            by ', '; null where unknown
WITH recent AS (
    SELECT
        m.service,
        SUM(CASE WHEN m.minute_number > n.minute_number - 60 THEN m.failure_count ELSE 0 END)
            AS failure_count_1h,
        SUM(CASE WHEN m.minute_number > n.minute_number - 1440 THEN m.failure_count ELSE 0 END)
            AS failure_count_24h,
        SUM(
            CASE
                WHEN e.family IS NOT NULL AND m.minute_number > n.minute_number - 60
                    THEN m.failure_count
                ELSE 0
            END
        ) AS critical_count_1h,
        SUM(
            CASE
                WHEN e.family IS NOT NULL AND m.minute_number > n.minute_number - 1440
                    THEN m.failure_count
                ELSE 0
            END
        ) AS critical_count_24h
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
    LEFT JOIN error_classes AS e ON e.error_class = m.error_class AND e.family = 'critical'
    GROUP BY m.service
),

standing AS (
    SELECT
        service,
        SUM(case_count) AS failure_count,
        SUM(CASE WHEN open_since IS NOT NULL THEN case_count ELSE 0 END)
            AS open_count,
        MIN(open_since) AS oldest_open_at
    FROM statuses_daily
    GROUP BY service
),

waiting AS (
    SELECT
        value AS service,
        open_since,
        SUM(SUM(case_count)) OVER (PARTITION BY value ORDER BY open_since DESC) AS so_far,
        SUM(SUM(case_count)) OVER (PARTITION BY value) AS open_count
    FROM durations_daily
    WHERE dimension = 'service' AND cause = 'open'
    GROUP BY value, open_since
),

waited AS (
    SELECT service, MAX(open_since) AS p90_open_since
    FROM waiting
    WHERE so_far >= 0.9 * open_count
    GROUP BY service
),

failed AS (
    SELECT
        s.service,
        s.failure_count,
        s.open_count,
        s.oldest_open_at,
        w.p90_open_since,
        r.failure_count_1h,
        r.failure_count_24h,
        r.critical_count_1h,
        r.critical_count_24h
    FROM standing AS s
    INNER JOIN recent AS r ON r.service = s.service
    LEFT JOIN waited AS w ON w.service = s.service
),

traffic AS (
    SELECT
        t.service,
        t.handled,
        t.succeeded,
        t.dead_lettered,
        DATE_DIFF('second', t.published_at, n.now) AS age_seconds
    FROM service_traffic AS t
    CROSS JOIN clock AS n
),

totals AS (
    SELECT
        service,
        CAST(SUM(handled) AS BIGINT) AS handled_count,
        CAST(SUM(succeeded) AS BIGINT) AS succeeded_count,
        CAST(SUM(dead_lettered) AS BIGINT) AS dead_lettered_count,
        CAST(SUM(CASE WHEN age_seconds < 86400 THEN handled ELSE 0 END) AS BIGINT)
            AS handled_count_24h,
        CAST(SUM(CASE WHEN age_seconds < 86400 THEN succeeded ELSE 0 END) AS BIGINT)
            AS succeeded_count_24h,
        CAST(SUM(CASE WHEN age_seconds < 86400 THEN dead_lettered ELSE 0 END) AS BIGINT)
            AS dead_lettered_count_24h,
        SUM(CASE WHEN age_seconds < 300 THEN dead_lettered ELSE 0 END) AS failed_5m,
        SUM(CASE WHEN age_seconds < 300 THEN succeeded + dead_lettered ELSE 0 END) AS ended_5m,
        SUM(CASE WHEN age_seconds < 1800 THEN dead_lettered ELSE 0 END) AS failed_30m,
        SUM(CASE WHEN age_seconds < 1800 THEN succeeded + dead_lettered ELSE 0 END) AS ended_30m,
        SUM(CASE WHEN age_seconds < 3600 THEN dead_lettered ELSE 0 END) AS failed_1h,
        SUM(CASE WHEN age_seconds < 3600 THEN succeeded + dead_lettered ELSE 0 END) AS ended_1h,
        SUM(CASE WHEN age_seconds < 21600 THEN dead_lettered ELSE 0 END) AS failed_6h,
        SUM(CASE WHEN age_seconds < 21600 THEN succeeded + dead_lettered ELSE 0 END) AS ended_6h,
        SUM(CASE WHEN age_seconds < 259200 THEN dead_lettered ELSE 0 END) AS failed_3d,
        SUM(CASE WHEN age_seconds < 259200 THEN succeeded + dead_lettered ELSE 0 END) AS ended_3d
    FROM traffic
    GROUP BY service
),

running AS (
    SELECT t.service, STRING_AGG(DISTINCT t.consumer_version, ', ' ORDER BY t.consumer_version) AS versions
    FROM service_totals AS t
    CROSS JOIN clock AS n
    WHERE DATE_DIFF('second', t.published_at, n.now) < 3600
    GROUP BY t.service
),

rates AS (
    SELECT
        t.*,
        t.dead_lettered_count_24h / t.n AS p,
        1.959963984540054 * 1.959963984540054 AS z2,
        CAST(t.failed_5m AS DOUBLE) / NULLIF(t.ended_5m, 0) / h.allowed_failure_rate AS burn_5m,
        CAST(t.failed_30m AS DOUBLE) / NULLIF(t.ended_30m, 0) / h.allowed_failure_rate AS burn_30m,
        CAST(t.failed_1h AS DOUBLE) / NULLIF(t.ended_1h, 0) / h.allowed_failure_rate AS burn_1h,
        CAST(t.failed_6h AS DOUBLE) / NULLIF(t.ended_6h, 0) / h.allowed_failure_rate AS burn_6h,
        CAST(t.failed_3d AS DOUBLE) / NULLIF(t.ended_3d, 0) / h.allowed_failure_rate AS burn_3d
    FROM (
        SELECT
            *,
            CAST(NULLIF(succeeded_count_24h + dead_lettered_count_24h, 0) AS DOUBLE) AS n
        FROM totals
    ) AS t
    CROSS JOIN health_rules AS h
),

together AS (
    SELECT
        COALESCE(f.service, r.service) AS service,
        COALESCE(f.failure_count_1h, 0) AS failure_count_1h,
        COALESCE(f.failure_count_24h, 0) AS failure_count_24h,
        COALESCE(f.failure_count, 0) AS failure_count,
        COALESCE(s.expected_count, 0) AS expected_count_1h,
        LOG2((COALESCE(f.failure_count_1h, 0) + 1.0) / (COALESCE(s.expected_count, 0) + 1.0))
            AS pressure,
        COALESCE(f.critical_count_1h, 0) AS critical_count_1h,
        COALESCE(f.critical_count_24h, 0) AS critical_count_24h,
        COALESCE(f.open_count, 0) AS open_count,
        CAST(f.open_count AS DOUBLE) / f.failure_count AS open_share,
        DATE_DIFF('second', f.oldest_open_at, n.now) AS oldest_open_age_seconds,
        DATE_DIFF('second', f.p90_open_since, n.now) AS p90_open_age_seconds,
        r.service IS NOT NULL AS has_totals,
        r.handled_count,
        r.succeeded_count,
        r.dead_lettered_count,
        r.handled_count_24h,
        r.succeeded_count_24h,
        r.dead_lettered_count_24h,
        r.p AS failure_rate_24h,
        CASE  -- of none and of all it is exact, where rounding says -1e-18
            WHEN r.p = 0 THEN 0.0
            ELSE (
                r.p + r.z2 / (2 * r.n)
                - SQRT(r.z2 * (r.p * (1 - r.p) / r.n + r.z2 / (4 * r.n * r.n)))
            ) / (1 + r.z2 / r.n)
        END AS failure_rate_24h_low,
        CASE
            WHEN r.p = 1 THEN 1.0
            ELSE (
                r.p + r.z2 / (2 * r.n)
                + SQRT(r.z2 * (r.p * (1 - r.p) / r.n + r.z2 / (4 * r.n * r.n)))
            ) / (1 + r.z2 / r.n)
        END AS failure_rate_24h_high,
        r.burn_5m,
        r.burn_30m,
        r.burn_1h,
        r.burn_6h,
        r.burn_3d,
        CASE
            WHEN r.service IS NULL THEN NULL
            WHEN
                (r.failed_1h >= 10 AND r.burn_1h > 14.4 AND r.burn_5m > 14.4)
                OR (r.failed_6h >= 10 AND r.burn_6h > 6 AND r.burn_30m > 6)
                THEN 'page'
            WHEN r.failed_3d >= 10 AND r.burn_3d > 1 AND r.burn_6h > 1 THEN 'ticket'
            ELSE 'none'
        END AS alert,
        u.versions
    FROM failed AS f
    FULL OUTER JOIN rates AS r ON r.service = f.service
    LEFT JOIN running AS u ON u.service = r.service
    LEFT JOIN spikes AS s
        ON s.dimension = 'service' AND s.value = COALESCE(f.service, r.service)
    CROSS JOIN clock AS n
),

parts AS (
    SELECT
        *,
        0.5 * LEAST(GREATEST(COALESCE(burn_1h / 14.4, pressure / 4), 0), 1) AS traffic_part,
        CASE WHEN critical_count_1h > 0 THEN 0.3 ELSE 0.0 END AS critical_part,
        0.2 * LEAST(GREATEST(COALESCE(oldest_open_age_seconds, 0) / 86400.0, 0), 1) AS age_part
    FROM together
)

SELECT
    service,
    100 * (1 - GREATEST(traffic_part, critical_part, age_part)) AS score,
    CAST(traffic_part AS DOUBLE) AS traffic_part,
    CAST(critical_part AS DOUBLE) AS critical_part,
    CAST(age_part AS DOUBLE) AS age_part,
    alert,
    CAST(failure_count_1h AS BIGINT) AS failure_count_1h,
    CAST(failure_count_24h AS BIGINT) AS failure_count_24h,
    CAST(failure_count AS BIGINT) AS failure_count,
    CAST(expected_count_1h AS DOUBLE) AS expected_count_1h,
    CAST(pressure AS DOUBLE) AS pressure,
    CAST(critical_count_1h AS BIGINT) AS critical_count_1h,
    CAST(critical_count_24h AS BIGINT) AS critical_count_24h,
    CAST(open_count AS BIGINT) AS open_count,
    open_share,
    oldest_open_age_seconds,
    p90_open_age_seconds,
    has_totals,
    handled_count,
    succeeded_count,
    dead_lettered_count,
    handled_count_24h,
    succeeded_count_24h,
    dead_lettered_count_24h,
    failure_rate_24h,
    failure_rate_24h_low,
    failure_rate_24h_high,
    burn_5m,
    burn_30m,
    burn_1h,
    burn_6h,
    burn_3d,
    versions
FROM parts
ORDER BY score, failure_count_24h DESC, service
