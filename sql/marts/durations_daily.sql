-- Counts of cases by duration, from which survival curves are computed.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per dlq_date (the server's day of the dead letter), cohort (dimension, value),
-- cause and duration.
--   dimension         overall | error_class | service | tenant_id | group_id
--   value             of the dimension; 'all' for overall; cases without tenant are not in the
--                     dimension tenant_id
--   cause             open | automatic_redrive | manual_redrive | manual | discarded, or reopened:
--                     it was closed after this time and later opened again. So it counts as lasting
--                     at least this long, and its next opening is counted separately
--   duration_seconds  from opening to closing, to three significant digits, at least 0; null while
--                     open
--   open_since        while open: the minute of dlq_timestamp, UTC; else null
--   case_count  cases
WITH lasted AS (
    SELECT
        dlq_date,
        error_class,
        service,
        tenant_id,
        group_id,
        CASE WHEN status = 'reopened' THEN 'reopened' ELSE cause END AS cause,
        CASE
            WHEN closed_at > opened_at THEN (EPOCH_US(closed_at) - EPOCH_US(opened_at)) / 1e6
            WHEN closed_at IS NOT NULL THEN 0
        END AS seconds,
        CASE WHEN closed_at IS NULL THEN DATE_TRUNC('minute', opened_at) END AS open_since
    FROM cases
),

rounded AS (
    SELECT
        *,
        CASE
            WHEN seconds > 0
                THEN
                    ROUND(seconds / POWER(10, FLOOR(LOG10(seconds)) - 2))
                    * POWER(10, FLOOR(LOG10(seconds)) - 2)
            ELSE seconds
        END AS duration_seconds
    FROM lasted
),

cohorts AS (
    SELECT
        dlq_date,
        cause,
        duration_seconds,
        open_since,
        CASE GROUPING(error_class, service, tenant_id, group_id)
            WHEN 7 THEN 'error_class'
            WHEN 11 THEN 'service'
            WHEN 13 THEN 'tenant_id'
            WHEN 14 THEN 'group_id'
            ELSE 'overall'
        END AS dimension,
        CASE GROUPING(error_class, service, tenant_id, group_id)
            WHEN 7 THEN error_class
            WHEN 11 THEN service
            WHEN 13 THEN tenant_id
            WHEN 14 THEN group_id
            ELSE 'all'
        END AS value,
        COUNT(*) AS case_count
    FROM rounded
    GROUP BY GROUPING SETS (
        (dlq_date, cause, duration_seconds, open_since),
        (dlq_date, cause, duration_seconds, open_since, error_class),
        (dlq_date, cause, duration_seconds, open_since, service),
        (dlq_date, cause, duration_seconds, open_since, tenant_id),
        (dlq_date, cause, duration_seconds, open_since, group_id)
    )
)

SELECT dlq_date, dimension, value, cause, duration_seconds, open_since, case_count
FROM cohorts
WHERE value IS NOT NULL
ORDER BY dlq_date, dimension, value, cause, duration_seconds, open_since
