-- Times in which a failure group had more failures than usual, and the incident that each is part of.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per group_id and outbreak of the last 13 weeks. It begins when the last 60 minutes
-- have at least 10 cases, at least six times the expected number, and so many that they occur by
-- chance (Poisson) less than once in 100,000,000 hours: see `outbreak_limits`. This is the rule of
-- `spikes` with stricter numbers, because every minute of every group is looked at. Expected is the
-- mean of the 24 hours before (of those there are, in a younger log), but no less than the median of
-- the same 60 minutes one to four weeks ago. In the first two hours of a log nothing is known of
-- what is usual, and 10 cases in five minutes begin it. It lasts while the rule holds, also if only
-- beside what is expected from times before it: the median, or in a log of less than four weeks the
-- day before the last. Pauses of up to an hour belong to it.
--   incident_id     see `incidents`
--   group_id
--   cause_id        of the group, as in `failure_groups`
--   noticed_minute  when the rule first held, in minutes since 1970
--   from_minute     when it began, in minutes since 1970: the minute that divides the hour before it
--                   was noticed best into two rates (maximum likelihood)
--   from_at         first failure in it, UTC
--   until_minute    last minute, in minutes since 1970: likewise, of the last such hour; now, while
--                   it lasts
--   is_over         the rule has not held for an hour
WITH history AS (
    SELECT MIN(minute_number) AS first_minute FROM failures_minutely
),

minutes AS (
    SELECT
        m.group_id,
        m.minute_number,
        SUM(m.failure_count) AS failure_count,
        MIN(m.first_opened_at) AS first_opened_at
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
    WHERE m.minute_number <= n.minute_number AND m.minute_number > n.minute_number - 17 * 10080
    GROUP BY m.group_id, m.minute_number
),

-- The last 60 minutes of each minute, and what is expected of them, from the 24 hours before, the 24
-- hours before these, and the same 60 minutes one, two, three and four weeks ago.
hours AS (
    SELECT
        group_id,
        minute_number,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 4 PRECEDING AND CURRENT ROW
        ) AS five_minute_count,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 59 PRECEDING AND CURRENT ROW
        ) AS hour_count,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 1499 PRECEDING AND 60 PRECEDING
        ) AS day_count,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 2939 PRECEDING AND 1500 PRECEDING
        ) AS day_before_count,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 10139 PRECEDING AND 10080 PRECEDING
        ) AS one,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 20219 PRECEDING AND 20160 PRECEDING
        ) AS two,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 30299 PRECEDING AND 30240 PRECEDING
        ) AS three,
        SUM(failure_count) OVER (
            PARTITION BY group_id
            ORDER BY minute_number RANGE BETWEEN 40379 PRECEDING AND 40320 PRECEDING
        ) AS four
    FROM minutes
),

busy AS (
    SELECT
        w.group_id,
        w.minute_number,
        w.five_minute_count,
        w.hour_count,
        w.minute_number - h.first_minute AS age_minutes,
        COALESCE(w.day_count, 0) AS day_count,
        COALESCE(w.day_before_count, 0) AS day_before_count,
        COALESCE(w.one, 0) AS one,
        COALESCE(w.two, 0) AS two,
        COALESCE(w.three, 0) AS three,
        COALESCE(w.four, 0) AS four
    FROM hours AS w
    CROSS JOIN history AS h
    WHERE w.hour_count >= 10
),

expected AS (
    SELECT
        *,
        CAST(day_count AS DOUBLE) / LEAST(GREATEST((age_minutes - 60) / 60.0, 1.0), 24.0) AS of_day,
        CAST(day_before_count AS DOUBLE)
        / LEAST(GREATEST((age_minutes - 1500) / 60.0, 1.0), 24.0) AS of_day_before,
        -- the median of four values: the mean without the smallest and the largest
        CAST(
            one + two + three + four
            - LEAST(one, two, three, four)
            - GREATEST(one, two, three, four) AS DOUBLE
        ) / 2 AS of_weeks
    FROM busy
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
            e.group_id,
            e.minute_number,
            CASE
                WHEN e.age_minutes < 120 THEN e.five_minute_count >= 10
                ELSE
                    GREATEST(e.of_day, e.of_weeks)
                    <= COALESCE(l.expected_limit, CAST(e.hour_count AS DOUBLE) / 6)
            END AS is_start,
            e.age_minutes >= 1560
            AND CASE WHEN e.age_minutes >= 4 * 10080 THEN e.of_weeks ELSE e.of_day_before END
            <= COALESCE(l.expected_limit, CAST(e.hour_count AS DOUBLE) / 6) AS is_more
        FROM expected AS e
        LEFT JOIN outbreak_limits AS l ON l.failure_count = e.hour_count
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

-- Within the hour that was first over the limit: the minute that divides it best into two rates.
onsets AS (
    SELECT
        s.group_id,
        s.number,
        m.minute_number,
        m.first_opened_at,
        s.noticed_minute - m.minute_number + 1 AS later_minutes,
        SUM(m.failure_count) OVER (
            PARTITION BY s.group_id, s.number ORDER BY m.minute_number DESC
        ) AS later_count,
        SUM(m.failure_count) OVER (PARTITION BY s.group_id, s.number) AS hour_count
    FROM spans AS s
    INNER JOIN minutes AS m
        ON
            m.group_id = s.group_id
            AND m.minute_number BETWEEN s.noticed_minute - 59 AND s.noticed_minute
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
        *,
        ROW_NUMBER() OVER (
            PARTITION BY group_id, number
            ORDER BY
                later_count * LN(CAST(later_count AS DOUBLE) / later_minutes)
                + CASE
                    WHEN hour_count > later_count
                        THEN
                            (hour_count - later_count)
                            * LN(CAST(hour_count - later_count AS DOUBLE) / (60 - later_minutes))
                    ELSE 0
                END DESC,
                minute_number
        ) AS place
    FROM onsets
    WHERE later_count * (60 - later_minutes) >= (hour_count - later_count) * later_minutes
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
        e.minute_number >= b.minute_number
        AND e.earlier_count * (60 - e.earlier_minutes) >= (e.hour_count - e.earlier_count) * e.earlier_minutes
)

SELECT
    s.group_id,
    g.cause_id,
    s.noticed_minute,
    b.minute_number AS from_minute,
    b.first_opened_at AS from_at,
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
