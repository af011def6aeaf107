-- Services that often begin to fail together. It does not say which one is the cause.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per pair of services whose outbreaks in the last four weeks began together at
-- least three times and more often than by chance (adjusted p < 0.01).
--   service_a, service_b  in alphabetical order
--   outbreaks_a, outbreaks_b  how often each one began to fail. An outbreak begins in a minute with
--                             a spike (`spikes`: at least 10 cases in 5 minutes, at least three
--                             times the expected) after 30 minutes without one
--   together_count        outbreaks of both within two minutes of each other
--   lift                  together_count / the number expected for independent services
--   leader                the service that began first more often, null if neither did
--   median_lag_seconds    from the leader's first failure to the other's, median
--   slot_count            5-minute slots of the period
--   p_value, adjusted_p   Fisher's exact test, one-sided; adjusted by Benjamini-Hochberg over pairs
WITH span AS (
    SELECT
        MIN(m.minute_number) AS first_minute,
        GREATEST(MIN(m.minute_number), MAX(n.minute_number) - 4 * 10080) AS from_minute,
        MAX(n.minute_number) AS to_minute
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
),

minutes AS (
    SELECT
        m.service,
        m.minute_number,
        CAST(FLOOR(m.minute_number / 60) AS BIGINT) AS hour_number,
        SUM(m.failure_count) AS failure_count,
        MIN(m.first_opened_at) AS first_opened_at,
        SUM(SUM(m.failure_count)) OVER (
            PARTITION BY m.service
            ORDER BY m.minute_number RANGE BETWEEN CURRENT ROW AND 4 FOLLOWING
        ) AS five_minute_count
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
    WHERE m.minute_number <= n.minute_number AND m.minute_number > n.minute_number - 8 * 10080
    GROUP BY m.service, m.minute_number
),

hours AS (
    SELECT
        service,
        hour_number,
        SUM(failure_count) AS failure_count,
        SUM(SUM(failure_count)) OVER (
            PARTITION BY service
            ORDER BY hour_number RANGE BETWEEN 24 PRECEDING AND 1 PRECEDING
        ) AS day_count
    FROM minutes
    GROUP BY service, hour_number
),

weekly AS (
    SELECT
        h.service,
        h.hour_number,
        COALESCE(h.day_count, 0) AS day_count,
        COALESCE(one.failure_count, 0) AS one,
        COALESCE(two.failure_count, 0) AS two,
        COALESCE(three.failure_count, 0) AS three,
        COALESCE(four.failure_count, 0) AS four
    FROM hours AS h
    LEFT JOIN hours AS one ON one.service = h.service AND one.hour_number = h.hour_number - 168
    LEFT JOIN hours AS two ON two.service = h.service AND two.hour_number = h.hour_number - 336
    LEFT JOIN hours AS three
        ON three.service = h.service AND three.hour_number = h.hour_number - 504
    LEFT JOIN hours AS four ON four.service = h.service AND four.hour_number = h.hour_number - 672
),

expected AS (
    SELECT
        w.service,
        w.hour_number,
        CASE
            WHEN w.hour_number - s.first_minute / 60 >= 672
                THEN
                    CAST(
                        w.one + w.two + w.three + w.four
                        - LEAST(w.one, w.two, w.three, w.four)
                        - GREATEST(w.one, w.two, w.three, w.four) AS DOUBLE
                    ) / 2
            ELSE CAST(w.day_count AS DOUBLE) / 24
        END AS hourly_count
    FROM weekly AS w
    CROSS JOIN span AS s
),

-- Two in the minute itself, so that a single failure just before an outbreak is not taken as its
-- start.
over_limit AS (
    SELECT
        m.service,
        m.minute_number,
        m.first_opened_at,
        LAG(m.minute_number) OVER (PARTITION BY m.service ORDER BY m.minute_number) AS before
    FROM minutes AS m
    INNER JOIN expected AS e ON e.service = m.service AND e.hour_number = m.hour_number
    LEFT JOIN spike_limits AS l ON l.failure_count = m.five_minute_count
    WHERE
        m.failure_count >= 2
        AND m.failure_count >= 3 * e.hourly_count / 60
        AND m.five_minute_count >= 10
        AND e.hourly_count / 12 <= COALESCE(l.expected_limit, m.five_minute_count / 3)
),

onsets AS (
    SELECT o.service, o.minute_number, o.first_opened_at
    FROM over_limit AS o
    CROSS JOIN span AS s
    WHERE
        (o.before IS NULL OR o.minute_number - o.before > 30)
        AND o.minute_number >= s.from_minute
),

outbreaks AS (
    SELECT service, COUNT(*) AS outbreak_count FROM onsets GROUP BY service
),

together AS (
    SELECT
        a.service AS service_a,
        b.service AS service_b,
        COUNT(*) AS together_count,
        MEDIAN((EPOCH_US(b.first_opened_at) - EPOCH_US(a.first_opened_at)) / 1e6) AS median_lag
    FROM onsets AS a
    INNER JOIN onsets AS b
        ON
            a.service < b.service
            AND b.minute_number BETWEEN a.minute_number - 2 AND a.minute_number + 2
    GROUP BY a.service, b.service
)

SELECT
    a.service AS service_a,
    b.service AS service_b,
    a.outbreak_count AS outbreaks_a,
    b.outbreak_count AS outbreaks_b,
    COALESCE(t.together_count, 0) AS together_count,
    CASE WHEN t.median_lag > 0 THEN a.service WHEN t.median_lag < 0 THEN b.service END AS leader,
    ABS(t.median_lag) AS median_lag_seconds,
    GREATEST(CAST(FLOOR((s.to_minute - s.from_minute) / 5) AS BIGINT), 1) AS slot_count
FROM outbreaks AS a
INNER JOIN outbreaks AS b ON a.service < b.service
LEFT JOIN together AS t ON t.service_a = a.service AND t.service_b = b.service
CROSS JOIN span AS s
ORDER BY a.service, b.service
