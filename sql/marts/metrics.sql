-- The five metrics: rate of failures, error types, success of redrives, health of services, time
-- until a failure ends.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per metric and label.
--   metric  dlq_rate               failures a minute: mean over a window of whole minutes that ends
--                                  with the minute of the build; label: the window. The alert rule
--                                  of that name has the mean up to the last drain
--           redrive_success_rate   succeeded / (succeeded + failed again), 0 to 1; label: window
--           error_distribution     share of the cases of the last 24 hours, 0 to 1; label: type
--           service_health         score, 0 to 100; label: service
--           resolution_time        seconds; label: median | p90 | mean_of_first_24h (restricted)
--   label   see above
--   value   null if unknown or not reached
WITH windows AS (
    SELECT *
    FROM
        (VALUES ('5 minutes', 5), ('1 hour', 60), ('24 hours', 1440), ('7 days', 10080)) AS w
        (label, minutes)
),

rates AS (
    SELECT
        w.label,
        CAST(
            SUM(
                CASE
                    WHEN
                        m.minute_number <= n.minute_number
                        AND m.minute_number > n.minute_number - w.minutes
                        THEN m.failure_count
                    ELSE 0
                END
            ) AS DOUBLE
        ) / w.minutes AS value
    FROM windows AS w
    CROSS JOIN clock AS n
    CROSS JOIN failures_minutely AS m
    GROUP BY w.label, w.minutes
),

redriven AS (
    SELECT
        w.label,
        CAST(SUM(CASE WHEN r.has_succeeded THEN r.attempt_count ELSE 0 END) AS DOUBLE)
        / SUM(r.attempt_count) AS value
    FROM windows AS w
    CROSS JOIN clock AS n
    INNER JOIN redrives_daily AS r
        ON
            r.has_succeeded IS NOT NULL
            AND r.ended_minute > n.minute_number - w.minutes
    WHERE w.minutes >= 60
    GROUP BY w.label
),

types AS (
    SELECT
        m.error_class,
        CAST(SUM(m.failure_count) AS DOUBLE) / SUM(SUM(m.failure_count)) OVER () AS value
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
    WHERE m.minute_number <= n.minute_number AND m.minute_number > n.minute_number - 1440
    GROUP BY m.error_class
),

times AS (
    SELECT
        l.label,
        CASE l.label
            WHEN 'median' THEN t.median_seconds
            WHEN 'p90' THEN t.p90_seconds
            WHEN 'mean_of_first_24h' THEN
                CASE
                    WHEN t.follow_up_seconds >= 86400 OR t.open_share = 0 THEN t.rmst_24h_seconds
                END
        END AS value
    FROM resolution_times AS t
    CROSS JOIN (VALUES ('median'), ('p90'), ('mean_of_first_24h')) AS l (label)
    WHERE t.dimension = 'overall'
)

SELECT 'dlq_rate' AS metric, label, value FROM rates
UNION ALL
SELECT 'redrive_success_rate' AS metric, label, value FROM redriven
UNION ALL
SELECT 'error_distribution' AS metric, error_class AS label, value FROM types
UNION ALL
SELECT 'service_health' AS metric, service AS label, score AS value FROM service_health
UNION ALL
SELECT 'resolution_time' AS metric, label, value FROM times
ORDER BY metric, label
