-- Incidents: groups that began to fail more than usual, together or for one cause, as one story.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per incident of the last 13 weeks, the newest first: the outbreaks that belong
-- together, see `outbreaks`. Two do if their groups have the same cause and both last at some time,
-- or if they begin within two minutes of each other and their groups do so more often than by chance
-- (Fisher's exact test over all pairs of groups, adjusted p < 0.01).
--   incident_id       day and hour (UTC) in which it was noticed, and the first digits of the group
--                     that was noticed first: it stays while the incident grows
--   from_at           first failure, UTC
--   until_at          end of its last minute, UTC; null while it lasts
--   peak_count        most failures in one minute
--   peak_at           the first such minute, UTC
--   services          in the order in which they joined, joined by ', '
--   groups            group_id in the order in which they joined, joined by ', '
--   causes            cause_id of the groups, in alphabetical order, joined by ', '
--   service_count, group_count  how many services and groups
--   failure_count     cases of the groups while they had the outbreak
--   tenant_count      distinct tenants of these
--   cured_count       of these closed by a redrive
--   open_count        of these pending, retried or parked
--   delay_seconds     cost: the time from each failure to its closing, or to now, summed up
WITH failed AS (
    SELECT
        o.incident_id,
        m.minute_number,
        m.service,
        m.group_id,
        m.failure_count,
        GREATEST(m.first_opened_at, o.from_at) AS first_opened_at,
        m.open_count,
        m.cured_count,
        m.total_closed_seconds
        + m.open_count * CAST(FLOOR(EPOCH_US(n.now) / 1e6) AS BIGINT) - m.total_open_since_seconds
            AS delay_seconds
    FROM outbreaks AS o
    INNER JOIN failures_minutely AS m
        ON m.group_id = o.group_id AND m.minute_number BETWEEN o.from_minute AND o.until_minute
    CROSS JOIN clock AS n
),

counted AS (
    SELECT
        incident_id,
        MIN(first_opened_at) AS from_at,
        CAST(SUM(failure_count) AS BIGINT) AS failure_count,
        CAST(SUM(cured_count) AS BIGINT) AS cured_count,
        CAST(SUM(open_count) AS BIGINT) AS open_count,
        CAST(SUM(delay_seconds) AS BIGINT) AS delay_seconds
    FROM failed
    GROUP BY incident_id
),

minutes AS (
    SELECT
        incident_id,
        DATE_TRUNC('minute', MIN(first_opened_at)) AS minute_at,
        CAST(SUM(failure_count) AS BIGINT) AS failure_count,
        ROW_NUMBER() OVER (
            PARTITION BY incident_id ORDER BY SUM(failure_count) DESC, minute_number
        ) AS place
    FROM failed
    GROUP BY incident_id, minute_number
),

joined AS (
    SELECT incident_id, service, MIN(first_opened_at) AS joined_at
    FROM failed
    GROUP BY incident_id, service
),

served AS (
    SELECT
        incident_id,
        STRING_AGG(service, ', ' ORDER BY joined_at, service) AS services,
        COUNT(*) AS service_count
    FROM joined
    GROUP BY incident_id
),

grown AS (
    SELECT
        incident_id,
        group_id,
        MAX(cause_id) AS cause_id,
        MIN(from_at) AS joined_at,
        MAX(until_minute) AS until_minute,
        MIN(CASE WHEN is_over THEN 1 ELSE 0 END) AS is_over
    FROM outbreaks
    GROUP BY incident_id, group_id
),

grouped AS (
    SELECT
        incident_id,
        STRING_AGG(group_id, ', ' ORDER BY joined_at, group_id) AS groups,
        STRING_AGG(DISTINCT cause_id, ', ' ORDER BY cause_id) AS causes,
        COUNT(*) AS group_count,
        MAX(until_minute) AS until_minute,
        MIN(is_over) AS is_over
    FROM grown
    GROUP BY incident_id
),

days AS (
    SELECT MIN(CAST(from_at AT TIME ZONE 'UTC' AS DATE)) AS first_date FROM outbreaks
),

hit AS (
    SELECT o.incident_id, COUNT(DISTINCT d.tenant_id) AS tenant_count
    FROM dead_letters AS d
    INNER JOIN (SELECT DISTINCT incident_id, group_id, minute_number FROM failed) AS o
        ON
            o.group_id = d.group_id
            AND o.minute_number = CAST(FLOOR(EPOCH(d.dlq_timestamp) / 60) AS BIGINT)
    CROSS JOIN days AS f
    WHERE d.dlq_date >= f.first_date - 1 AND d.root_failure_id IS NULL
    GROUP BY o.incident_id
)

SELECT
    c.incident_id,
    c.from_at,
    CASE WHEN g.is_over = 1 THEN TO_TIMESTAMP(60 * (g.until_minute + 1)) END AS until_at,
    p.failure_count AS peak_count,
    p.minute_at AS peak_at,
    s.services,
    g.groups,
    g.causes,
    s.service_count,
    g.group_count,
    c.failure_count,
    COALESCE(h.tenant_count, 0) AS tenant_count,
    c.cured_count,
    c.open_count,
    c.delay_seconds
FROM counted AS c
INNER JOIN minutes AS p ON p.incident_id = c.incident_id AND p.place = 1
INNER JOIN served AS s ON s.incident_id = c.incident_id
INNER JOIN grouped AS g ON g.incident_id = c.incident_id
LEFT JOIN hit AS h ON h.incident_id = c.incident_id
ORDER BY c.from_at DESC, c.incident_id
