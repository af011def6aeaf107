-- Series with more failures than usual right now.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per series (dimension, value) that failed in the last hour, in the day before it,
-- or in the same hour of one of the four weeks before.
--   dimension       overall | service | error_class | group_id
--   value           of the dimension; 'all' for overall
--   failure_count   cases of the last 60 minutes, to the minute
--   expected_count  median of the same 60 minutes one, two, three and four weeks ago; with less
--                   than four weeks of log, the hourly mean of the 24 hours before
--   expected_from   4 weeks | 24 hours
--   is_spike        failure_count >= 10, >= 3 * expected_count, and by chance (Poisson) so many
--                   occur less than once in 10,000 hours: see `spike_limits`
WITH history AS (
    SELECT MIN(minute_number) AS first_minute FROM failures_minutely
),

recent AS (
    SELECT
        m.service,
        m.error_class,
        m.group_id,
        m.failure_count,
        n.minute_number - m.minute_number AS age_minutes
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
    WHERE
        m.minute_number <= n.minute_number
        AND m.minute_number > n.minute_number - 4 * 10080 - 60
        AND (
            m.minute_number > n.minute_number - 1500
            OR (n.minute_number - m.minute_number) % 10080 < 60
        )
),

series AS (
    SELECT
        d.dimension,
        CASE d.dimension
            WHEN 'service' THEN r.service
            WHEN 'error_class' THEN r.error_class
            WHEN 'group_id' THEN r.group_id
            ELSE 'all'
        END AS value,
        r.failure_count,
        r.age_minutes,
        FLOOR(r.age_minutes / 10080) AS weeks_ago,
        r.age_minutes % 10080 < 60 AS is_same_hour
    FROM recent AS r
    CROSS JOIN
        (VALUES ('overall'), ('service'), ('error_class'), ('group_id')) AS d (dimension)
),

counted AS (
    SELECT
        dimension,
        value,
        SUM(CASE WHEN age_minutes < 60 THEN failure_count ELSE 0 END) AS now_count,
        SUM(CASE WHEN age_minutes BETWEEN 60 AND 1499 THEN failure_count ELSE 0 END) AS day_count,
        SUM(CASE WHEN is_same_hour AND weeks_ago = 1 THEN failure_count ELSE 0 END) AS one,
        SUM(CASE WHEN is_same_hour AND weeks_ago = 2 THEN failure_count ELSE 0 END) AS two,
        SUM(CASE WHEN is_same_hour AND weeks_ago = 3 THEN failure_count ELSE 0 END) AS three,
        SUM(CASE WHEN is_same_hour AND weeks_ago = 4 THEN failure_count ELSE 0 END) AS four
    FROM series
    GROUP BY dimension, value
),

expected AS (
    SELECT
        c.dimension,
        c.value,
        CAST(c.now_count AS BIGINT) AS failure_count,
        CASE
            WHEN n.minute_number - h.first_minute >= 4 * 10080
                -- the median of four values: the mean without the smallest and the largest
                THEN
                    CAST(
                        c.one + c.two + c.three + c.four
                        - LEAST(c.one, c.two, c.three, c.four)
                        - GREATEST(c.one, c.two, c.three, c.four) AS DOUBLE
                    ) / 2
            ELSE CAST(c.day_count AS DOUBLE) / 24
        END AS expected_count,
        CASE
            WHEN n.minute_number - h.first_minute >= 4 * 10080 THEN '4 weeks'
            ELSE '24 hours'
        END AS expected_from
    FROM counted AS c
    CROSS JOIN history AS h
    CROSS JOIN clock AS n
)

SELECT
    e.dimension,
    e.value,
    e.failure_count,
    e.expected_count,
    e.expected_from,
    e.failure_count >= 10
    AND e.expected_count <= COALESCE(l.expected_limit, e.failure_count / 3) AS is_spike
FROM expected AS e
LEFT JOIN spike_limits AS l ON l.failure_count = e.failure_count
ORDER BY e.dimension, e.failure_count DESC, e.value
