-- Times in which a failure group had more failures than usual, and the incident that each is part of.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per group_id and outbreak of the last 13 weeks. It begins when the last 60 minutes
-- have at least 10 cases, at least six times the expected number, and so many that they occur by
-- chance (Poisson) less than once in 100,000,000 hours: see `outbreak_limits`. This is the rule of
-- `spikes` with stricter numbers, because every minute of every group is looked at. Expected is the
-- hourly mean of the day before (of the hours there are, in a younger log), but no less than the
-- median of the same hour of the week over four weeks. In the first four hours of a log nothing is
-- known of what is usual, and 10 cases in five minutes begin it. It lasts while the rule holds beside
-- what was expected before it: the median, or in a log of less than four weeks the mean of the day
-- before the last. Pauses of up to an hour belong to it.
--   incident_id     see `incidents`
--   group_id
--   cause_id        of the group, as in `failure_groups`
--   noticed_minute  when the rule first held, in minutes since 1970
--   from_minute     the minute of from_at, in minutes since 1970
--   from_at         when it began, UTC: the failure that divides the hour before it was noticed best
--                   into two rates (maximum likelihood)
--   until_minute    last minute, in minutes since 1970: likewise, of the last such hour; now, while
--                   it lasts
--   is_over         the rule has not held for an hour
WITH history AS (
    SELECT
        MIN(minute_number) AS first_minute,
        CAST(FLOOR(MIN(minute_number) / 60) AS BIGINT) AS first_hour
    FROM failures_minutely
),

hours AS (
    SELECT
        m.group_id,
        CAST(FLOOR(m.minute_number / 60) AS BIGINT) AS hour_number,
        SUM(m.failure_count) AS failure_count
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
    WHERE m.minute_number <= n.minute_number AND m.minute_number > n.minute_number - 17 * 10080
    GROUP BY m.group_id, CAST(FLOOR(m.minute_number / 60) AS BIGINT)
),

days AS (
    SELECT
        group_id,
        hour_number,
        SUM(failure_count) OVER (
            PARTITION BY group_id ORDER BY hour_number RANGE BETWEEN 1 PRECEDING AND CURRENT ROW
        ) AS two_hour_count,
        SUM(failure_count) OVER (
            PARTITION BY group_id ORDER BY hour_number RANGE BETWEEN 25 PRECEDING AND 2 PRECEDING
        ) AS day_count,
        SUM(failure_count) OVER (
            PARTITION BY group_id ORDER BY hour_number RANGE BETWEEN 49 PRECEDING AND 26 PRECEDING
        ) AS day_before_count
    FROM hours
),

-- Sixty minutes reach into two hours: the larger of the same two, one to four weeks ago.
weeks AS (
    SELECT
        h.group_id,
        h.hour_number + 168 * w.week + s.shift AS hour_number,
        MAX(CASE WHEN w.week = 1 THEN h.failure_count ELSE 0 END) AS one,
        MAX(CASE WHEN w.week = 2 THEN h.failure_count ELSE 0 END) AS two,
        MAX(CASE WHEN w.week = 3 THEN h.failure_count ELSE 0 END) AS three,
        MAX(CASE WHEN w.week = 4 THEN h.failure_count ELSE 0 END) AS four
    FROM hours AS h
    CROSS JOIN (VALUES (1), (2), (3), (4)) AS w (week)
    CROSS JOIN (VALUES (0), (1)) AS s (shift)
    GROUP BY h.group_id, h.hour_number + 168 * w.week + s.shift
),

known AS (
    SELECT
        d.group_id,
        d.hour_number,
        d.two_hour_count,
        d.hour_number - h.first_hour AS age_hours,
        CAST(COALESCE(d.day_count, 0) AS DOUBLE)
        / LEAST(GREATEST(d.hour_number - h.first_hour - 2, 1), 24) AS of_day,
        CAST(COALESCE(d.day_before_count, 0) AS DOUBLE)
        / LEAST(GREATEST(d.hour_number - h.first_hour - 26, 1), 24) AS of_day_before,
        -- the median of four values: the mean without the smallest and the largest
        COALESCE(
            CAST(
                w.one + w.two + w.three + w.four
                - LEAST(w.one, w.two, w.three, w.four)
                - GREATEST(w.one, w.two, w.three, w.four) AS DOUBLE
            ) / 2, 0
        ) AS of_weeks
    FROM days AS d
    LEFT JOIN weeks AS w ON w.group_id = d.group_id AND w.hour_number = d.hour_number
    CROSS JOIN history AS h
),

expected AS (
    SELECT
        group_id,
        hour_number,
        two_hour_count,
        age_hours,
        GREATEST(of_day, of_weeks) AS for_start,
        CASE
            WHEN age_hours > 672 THEN of_weeks
            WHEN age_hours > 26 THEN of_day_before
            ELSE GREATEST(of_day, of_weeks)
        END AS for_more
    FROM known
),

-- The few hours in which any sixty minutes can be over the limit; minutes are read of these and of the
-- hours before and after.
busy AS (
    SELECT *
    FROM expected
    WHERE
        two_hour_count >= 10
        AND (age_hours <= 4 OR two_hour_count >= 6 * LEAST(for_start, for_more))
),

minutes AS (
    SELECT
        m.group_id,
        m.minute_number,
        SUM(m.failure_count) AS failure_count
    FROM failures_minutely AS m
    INNER JOIN (
        SELECT DISTINCT b.group_id, b.hour_number - s.shift AS hour_number
        FROM busy AS b
        CROSS JOIN (VALUES (-1), (0), (1)) AS s (shift)
    ) AS w
        ON
            w.group_id = m.group_id
            AND w.hour_number = CAST(FLOOR(m.minute_number / 60) AS BIGINT)
    CROSS JOIN clock AS n
    WHERE m.minute_number <= n.minute_number
    GROUP BY m.group_id, m.minute_number
),

counted AS (
    SELECT
        group_id,
        minute_number,
        CAST(FLOOR(minute_number / 60) AS BIGINT) AS hour_number,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 4 PRECEDING AND CURRENT ROW
        ) AS five_minute_count,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 59 PRECEDING AND CURRENT ROW
        ) AS hour_count
    FROM minutes
),

over_limit AS (
    SELECT
        group_id,
        minute_number,
        is_start,
        minute_number
        - LAG(minute_number) OVER (PARTITION BY group_id ORDER BY minute_number) AS pause
    FROM (
        SELECT
            c.group_id,
            c.minute_number,
            CASE
                WHEN c.minute_number - h.first_minute < 240 THEN c.five_minute_count >= 10
                ELSE
                    e.for_start
                    <= COALESCE(l.expected_limit, CAST(c.hour_count AS DOUBLE) / 6)
            END AS is_start,
            e.for_more <= COALESCE(l.expected_limit, CAST(c.hour_count AS DOUBLE) / 6)
            AND c.minute_number - h.first_minute >= 240 AS is_more
        FROM counted AS c
        INNER JOIN busy AS e ON e.group_id = c.group_id AND e.hour_number = c.hour_number
        LEFT JOIN outbreak_limits AS l ON l.failure_count = c.hour_count
        CROSS JOIN history AS h
        WHERE c.hour_count >= 10
    ) AS judged
    WHERE is_start OR is_more
),

numbered AS (
    SELECT
        *,
        SUM(CASE WHEN pause <= 60 THEN 0 ELSE 1 END) OVER (
            PARTITION BY group_id ORDER BY minute_number
        ) AS number
    FROM over_limit
),

spans AS (
    SELECT
        group_id,
        number,
        MIN(CASE WHEN is_start THEN minute_number END) AS noticed_minute,
        MAX(minute_number) AS last_minute
    FROM numbered
    GROUP BY group_id, number
    HAVING MAX(CASE WHEN is_start THEN 1 ELSE 0 END) = 1
),

-- In the hour that was first over the limit, and ten minutes more: the failure from which on another
-- rate explains the rest best.
onsets AS (
    SELECT
        s.group_id,
        s.number,
        d.dlq_timestamp AS from_at,
        60 * (LEAST(s.noticed_minute + 10, n.minute_number) + 1) - EPOCH_US(d.dlq_timestamp) / 1e6
            AS later_seconds,
        60 * (LEAST(s.noticed_minute + 10, n.minute_number) - s.noticed_minute + 60) AS all_seconds,
        COUNT(*) OVER (
            PARTITION BY s.group_id, s.number ORDER BY d.dlq_timestamp DESC
        ) AS later_count,
        COUNT(*) OVER (PARTITION BY s.group_id, s.number) AS all_count
    FROM spans AS s
    INNER JOIN minutes AS m
        ON
            m.group_id = s.group_id
            AND m.minute_number BETWEEN s.noticed_minute - 59 AND s.noticed_minute + 10
    INNER JOIN dead_letters AS d
        ON
            d.group_id = m.group_id
            AND CAST(FLOOR(EPOCH(d.dlq_timestamp) / 60) AS BIGINT) = m.minute_number
    CROSS JOIN clock AS n
    WHERE
        d.dlq_timestamp <= n.now
        AND d.root_failure_id IS NULL
        AND d.dlq_date > CAST(n.now AT TIME ZONE 'UTC' AS DATE) - 93
),

ends AS (
    SELECT
        s.group_id,
        s.number,
        m.minute_number,
        m.minute_number - s.last_minute + 60 AS earlier_minutes,
        SUM(m.failure_count) OVER (
            PARTITION BY s.group_id, s.number ORDER BY m.minute_number
        ) AS earlier_count,
        SUM(m.failure_count) OVER (PARTITION BY s.group_id, s.number) AS hour_count
    FROM spans AS s
    INNER JOIN minutes AS m
        ON
            m.group_id = s.group_id
            AND m.minute_number BETWEEN s.last_minute - 59 AND s.last_minute
),

begun AS (
    SELECT
        group_id,
        number,
        from_at,
        CAST(FLOOR(EPOCH(from_at) / 60) AS BIGINT) AS from_minute,
        ROW_NUMBER() OVER (
            PARTITION BY group_id, number
            ORDER BY
                later_count * LN(later_count / later_seconds)
                + CASE
                    WHEN all_count > later_count
                        THEN
                            (all_count - later_count)
                            * LN((all_count - later_count) / (all_seconds - later_seconds))
                    ELSE 0
                END DESC,
                from_at
        ) AS place
    FROM onsets
    WHERE later_count * (all_seconds - later_seconds) >= (all_count - later_count) * later_seconds
),

ended AS (
    SELECT
        e.*,
        ROW_NUMBER() OVER (
            PARTITION BY e.group_id, e.number
            ORDER BY
                e.earlier_count * LN(CAST(e.earlier_count AS DOUBLE) / e.earlier_minutes)
                + CASE
                    WHEN e.hour_count > e.earlier_count
                        THEN
                            (e.hour_count - e.earlier_count)
                            * LN(CAST(e.hour_count - e.earlier_count AS DOUBLE) / (60 - e.earlier_minutes))
                    ELSE 0
                END DESC,
                e.minute_number DESC
        ) AS place
    FROM ends AS e
    INNER JOIN begun AS b
        ON b.group_id = e.group_id AND b.number = e.number AND b.place = 1
    WHERE
        e.minute_number >= b.from_minute
        AND e.earlier_count * (60 - e.earlier_minutes) >= (e.hour_count - e.earlier_count) * e.earlier_minutes
)

SELECT
    s.group_id,
    g.cause_id,
    s.noticed_minute,
    b.from_minute,
    b.from_at,
    CASE
        WHEN s.last_minute > n.minute_number - 60 THEN n.minute_number ELSE e.minute_number
    END AS until_minute,
    s.last_minute <= n.minute_number - 60 AS is_over,
    LEAST(n.minute_number - h.first_minute, 13 * 10080) AS history_minutes
FROM spans AS s
INNER JOIN begun AS b ON b.group_id = s.group_id AND b.number = s.number AND b.place = 1
INNER JOIN ended AS e ON e.group_id = s.group_id AND e.number = s.number AND e.place = 1
INNER JOIN failure_groups AS g ON g.group_id = s.group_id
CROSS JOIN history AS h
CROSS JOIN clock AS n
WHERE s.noticed_minute > n.minute_number - 13 * 10080
ORDER BY from_minute, s.group_id
