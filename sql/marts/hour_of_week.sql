-- Failures by hour of the week.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per series (dimension, value) and hour of the week, all 168 of each series, over
-- the last whole weeks (at most 12) before now; empty if the log is younger than 4 weeks.
--   dimension, value  overall 'all', or a service
--   hour_of_week      0 is Monday 00:00 UTC, 167 Sunday 23:00
--   week_count        weeks that were counted
--   failure_count     cases in this hour of all the weeks
--   weeks_hit         weeks with a case in this hour: one outage counts as one week
--   weeks_high        weeks in which this hour had at least three times the series' mean
--   expected_count    the mean of the series' 168 hours
--   chi_square        of the whole series, compared with a uniform week, 167 degrees of freedom
--   p_value           probability of such an uneven week by chance
WITH span AS (
    SELECT
        LEAST(FLOOR((n.minute_number + 1 - MIN(m.minute_number)) / 10080), 12) AS week_count,
        n.minute_number
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
    GROUP BY n.minute_number
),

counted AS (
    SELECT
        d.dimension,
        CASE d.dimension WHEN 'service' THEN m.service ELSE 'all' END AS value,
        -- 1 January 1970 was a Thursday.
        (FLOOR(m.minute_number / 60) + 72) % 168 AS hour_of_week,
        FLOOR((s.minute_number - m.minute_number) / 10080) AS weeks_ago,
        m.failure_count,
        s.week_count
    FROM failures_minutely AS m
    INNER JOIN span AS s
        ON
            m.minute_number <= s.minute_number
            AND m.minute_number > s.minute_number - s.week_count * 10080
    CROSS JOIN (VALUES ('overall'), ('service')) AS d (dimension)
    WHERE s.week_count >= 4
),

series AS (
    SELECT
        dimension,
        value,
        MAX(week_count) AS week_count,
        CAST(SUM(failure_count) AS DOUBLE) / 168 AS expected_count
    FROM counted
    GROUP BY dimension, value
),

weekly AS (
    SELECT dimension, value, hour_of_week, weeks_ago, SUM(failure_count) AS failure_count
    FROM counted
    GROUP BY dimension, value, hour_of_week, weeks_ago
),

hours AS (
    SELECT
        w.dimension,
        w.value,
        w.hour_of_week,
        SUM(w.failure_count) AS failure_count,
        COUNT(*) AS weeks_hit,
        SUM(CASE WHEN w.failure_count >= 3 * s.expected_count / s.week_count THEN 1 ELSE 0 END)
            AS weeks_high
    FROM weekly AS w
    INNER JOIN series AS s ON s.dimension = w.dimension AND s.value = w.value
    GROUP BY w.dimension, w.value, w.hour_of_week
),

cells AS (
    SELECT
        s.dimension,
        s.value,
        w.hour_of_week,
        s.week_count,
        COALESCE(h.failure_count, 0) AS failure_count,
        COALESCE(h.weeks_hit, 0) AS weeks_hit,
        COALESCE(h.weeks_high, 0) AS weeks_high,
        s.expected_count
    FROM series AS s
    CROSS JOIN week_hours AS w
    LEFT JOIN hours AS h
        ON
            h.dimension = s.dimension
            AND h.value = s.value
            AND h.hour_of_week = w.hour_of_week
)

SELECT
    dimension,
    value,
    hour_of_week,
    CAST(week_count AS BIGINT) AS week_count,
    CAST(failure_count AS BIGINT) AS failure_count,
    weeks_hit,
    CAST(weeks_high AS BIGINT) AS weeks_high,
    expected_count,
    SUM((failure_count - expected_count) * (failure_count - expected_count) / expected_count)
        OVER (PARTITION BY dimension, value) AS chi_square
FROM cells
ORDER BY dimension, value, hour_of_week
