-- The groups of similar failures (same type, frames and message) and their state.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per group_id.
--   group_id                 16 hexadecimal digits
--   parent_id                groups with the same type and frames
--   state                    resolved    nothing is open
--                            regressed   a person resolved the last of it, and then it came again
--                                        (or discarded a case that was then reopened): all
--                                        that is open opened after that, to the minute, and a
--                                        case's first attempt came after it. What automatic
--                                        redrives cure was never said to be over.
--                                        Also if it has regressed_in_version. Failures of older
--                                        versions than resolved_in_version do not count
--                            fixed       only versions older than resolved_in_version failed since
--                                        that decision: the open failures are of the known bug. Not
--                                        while escalating, except in its first 24 hours
--                            new         first seen less than 24 hours ago
--                            escalating  is_escalating
--                            ongoing     else; the first that applies
--   is_escalating            the last hour has at least 10 cases and more than escalation_limit
--   escalation_limit         maximum expected cases in an hour, from the hours of the seven days
--                            before; for a younger group ten times their maximum
--   error_class, template, frames, sample_failure_id   of the group's latest case
--   failure_count            cases; a reopened case counts once more per reopening
--   failure_count_1h, failure_count_24h   of the last hour and 24 hours, to the minute
--   first_seen_at            oldest dlq_timestamp, UTC
--   last_seen_at             newest dlq_timestamp, UTC
--   last_resolved_at         newest resolution, UTC, or null
--   services, consumers      names in alphabetical order, joined by ', '
--   tenant_count             distinct tenants
--   open_count               pending, retried or parked
--   resolved_count, parked_count, discarded_count  cases with that status
--   reopened_count           cases that were closed and opened again
--   redrive_count            redrives that were published, or are known to have ended in a handler
--   redrive_succeeded_count  of these, successful
--   redrive_chance           chance that a redrive succeeds, 0 to 1: the mean of Beta(a +
--                            successes, b + failures); the weight of outcomes halves every 7 days;
--                            (a, b) is (4, 2) for transient error types, (1, 9) for others
--   versions                 versions that it failed in, in alphabetical order, joined by ', '; null
--                            where unknown
--   resolved_in_version      version that a person said repairs it, by the newest such decision about
--                            each service, joined by ', '; null if there is none
--   regressed_in_version     versions from that one on in which it failed after that decision, as above
--   cause_id                 what a library raised, whoever called it; groups of one cause have the
--                            same. The most frequent one of the group's cases
WITH tallied AS (
    SELECT
        group_id,
        ARG_MAX_NULL(parent_id, last_log_position) AS parent_id,
        ARG_MAX_NULL(error_class, last_log_position) AS error_class,
        ARG_MAX_NULL(template, last_log_position) AS template,
        ARG_MAX_NULL(frames, last_log_position) AS frames,
        ARG_MAX_NULL(sample_failure_id, last_log_position) AS sample_failure_id,
        SUM(case_count) AS failure_count,
        MIN(first_opened_at) AS first_seen_at,
        MAX(last_opened_at) AS last_seen_at,
        MAX(last_first_attempt_at) AS last_first_attempt_at,
        MAX(last_resolved_at) AS last_resolved_at,
        MAX(last_resolved_by_person_at) AS last_resolved_by_person_at,
        STRING_AGG(DISTINCT service, ', ' ORDER BY service) AS services,
        STRING_AGG(DISTINCT consumer_name, ', ' ORDER BY consumer_name) AS consumers
    FROM cases_daily
    GROUP BY group_id
),

standing AS (
    SELECT
        group_id,
        MIN(open_since) AS oldest_open_at,
        SUM(CASE WHEN open_since IS NOT NULL THEN case_count ELSE 0 END)
            AS open_count,
        SUM(CASE WHEN status = 'resolved' THEN case_count ELSE 0 END) AS resolved_count,
        SUM(CASE WHEN status = 'parked' THEN case_count ELSE 0 END) AS parked_count,
        SUM(CASE WHEN status = 'discarded' THEN case_count ELSE 0 END) AS discarded_count,
        SUM(CASE WHEN status = 'reopened' THEN case_count ELSE 0 END) AS reopened_count
    FROM statuses_daily
    GROUP BY group_id
),

failed_in AS (
    SELECT group_id, STRING_AGG(DISTINCT consumer_version, ', ' ORDER BY consumer_version) AS versions
    FROM versions_daily
    WHERE failure_count > 0
    GROUP BY group_id
),

-- A version counts that failed after the decision about its service; without one, any failure does.
since_fix AS (
    SELECT
        *,
        CASE WHEN NOT is_older AND last_failed_at > resolved_at THEN consumer_version END AS regressed_in,
        CASE WHEN NOT is_older THEN last_failed_at END AS last_unfixed_at,
        CASE
            WHEN is_older OR last_failed_at <= resolved_at THEN 0
            ELSE 1
        END AS is_unfixed
    FROM fixes
),

fixed AS (
    SELECT
        group_id,
        STRING_AGG(DISTINCT resolved_in_version, ', ' ORDER BY resolved_in_version)
            AS resolved_in_version,
        STRING_AGG(DISTINCT regressed_in, ', ' ORDER BY regressed_in) AS regressed_in_version,
        MAX(last_unfixed_at) AS last_unfixed_at,
        MAX(is_unfixed) = 0 AS is_fixed
    FROM since_fix
    GROUP BY group_id
),

caused AS (
    SELECT
        group_id,
        cause_id,
        ROW_NUMBER() OVER (PARTITION BY group_id ORDER BY SUM(case_count) DESC, cause_id) AS place
    FROM cases_daily
    WHERE cause_id IS NOT NULL
    GROUP BY group_id, cause_id
),

hit AS (
    SELECT group_id, COUNT(DISTINCT tenant_id) AS tenant_count FROM tenants_daily GROUP BY group_id
),

-- Hours counted back from now: 0 is the last 60 minutes, 1 to 168 the seven days before.
hours AS (
    SELECT
        m.group_id,
        FLOOR((n.minute_number - m.minute_number) / 60) AS hours_ago,
        SUM(m.failure_count) AS failure_count
    FROM failures_minutely AS m
    CROSS JOIN clock AS n
    WHERE
        m.minute_number <= n.minute_number
        AND m.minute_number > n.minute_number - 169 * 60
    GROUP BY m.group_id, FLOOR((n.minute_number - m.minute_number) / 60)
),

-- Of the 168 hours, 24 have the same weekday as now and count double: 192 in total. Hours without
-- a failure have no row and add nothing to the sums.
weekly AS (
    SELECT
        h.group_id,
        SUM(CASE WHEN h.hours_ago = 0 THEN h.failure_count ELSE 0 END) AS now_count,
        SUM(CASE WHEN h.hours_ago < 24 THEN h.failure_count ELSE 0 END) AS day_count,
        MAX(CASE WHEN h.hours_ago > 0 THEN h.failure_count END) AS most,
        CAST(SUM(CASE WHEN h.hours_ago > 0 THEN h.failure_count ELSE 0 END) AS DOUBLE) / 168
            AS mean,
        CAST(
            SUM(CASE WHEN h.hours_ago > 0 THEN h.failure_count * h.failure_count ELSE 0 END)
            AS DOUBLE
        ) / 168 AS mean_square,
        CAST(
            SUM(
                CASE
                    WHEN h.hours_ago = 0 THEN 0
                    WHEN
                        FLOOR((n.minute_number - h.hours_ago * 60) / 1440) % 7
                        = FLOOR(n.minute_number / 1440) % 7
                        THEN 2 * h.failure_count
                    ELSE h.failure_count
                END
            ) AS DOUBLE
        ) / 192 AS weighted_mean
    FROM hours AS h
    CROSS JOIN clock AS n
    GROUP BY h.group_id
),

variation AS (
    SELECT
        *,
        SQRT(GREATEST(mean_square - mean * mean, 0)) / NULLIF(mean, 0) AS deviation_by_mean
    FROM weekly
),

limits AS (
    SELECT
        *,
        GREATEST(
            most * LEAST(GREATEST(5 * EXP(-0.65 * deviation_by_mean), 2), 5),
            weighted_mean + mean * LEAST(GREATEST(1 + 5 * deviation_by_mean, 5), 8)
        ) AS usual_limit
    FROM variation
),

redriven AS (
    SELECT
        r.group_id,
        CAST(SUM(r.out_count) AS BIGINT) AS redrive_count,
        CAST(SUM(CASE WHEN r.has_succeeded THEN r.attempt_count ELSE 0 END) AS BIGINT)
            AS redrive_succeeded_count,
        SUM(
            CASE WHEN r.has_succeeded THEN r.attempt_count ELSE 0 END
            * POWER(0.5, GREATEST(n.minute_number - r.ended_minute, 0) / 10080.0)
        ) AS successes,
        SUM(
            CASE WHEN NOT r.has_succeeded THEN r.attempt_count ELSE 0 END
            * POWER(0.5, GREATEST(n.minute_number - r.ended_minute, 0) / 10080.0)
        ) AS failures
    FROM redrives_daily AS r
    CROSS JOIN clock AS n
    GROUP BY r.group_id
),

judged AS (
    SELECT
        t.*,
        s.oldest_open_at,
        s.open_count,
        s.resolved_count,
        s.parked_count,
        s.discarded_count,
        s.reopened_count,
        h.tenant_count,
        v.versions,
        x.resolved_in_version,
        x.regressed_in_version,
        x.last_unfixed_at,
        COALESCE(x.is_fixed, FALSE) AS is_fixed,
        w.cause_id,
        COALESCE(l.now_count, 0) AS failure_count_1h,
        COALESCE(l.day_count, 0) AS failure_count_24h,
        CASE
            WHEN t.first_seen_at > n.now - INTERVAL '169' HOUR THEN 10.0 * COALESCE(l.most, 0)
            ELSE COALESCE(l.usual_limit, 0)
        END AS escalation_limit,
        COALESCE(r.redrive_count, 0) AS redrive_count,
        COALESCE(r.redrive_succeeded_count, 0) AS redrive_succeeded_count,
        (CASE WHEN e.family IS NULL THEN 1.0 ELSE 4.0 END + COALESCE(r.successes, 0))
        / (
            CASE WHEN e.family IS NULL THEN 10.0 ELSE 6.0 END
            + COALESCE(r.successes, 0)
            + COALESCE(r.failures, 0)
        ) AS redrive_chance,
        n.now
    FROM tallied AS t
    INNER JOIN standing AS s ON s.group_id = t.group_id
    INNER JOIN hit AS h ON h.group_id = t.group_id
    LEFT JOIN failed_in AS v ON v.group_id = t.group_id
    LEFT JOIN fixed AS x ON x.group_id = t.group_id
    LEFT JOIN caused AS w ON w.group_id = t.group_id AND w.place = 1
    LEFT JOIN limits AS l ON l.group_id = t.group_id
    LEFT JOIN redriven AS r ON r.group_id = t.group_id
    LEFT JOIN error_classes AS e ON e.error_class = t.error_class AND e.family = 'transient'
    CROSS JOIN clock AS n
)

SELECT
    group_id,
    parent_id,
    CASE
        WHEN open_count = 0 THEN 'resolved'
        WHEN regressed_in_version IS NOT NULL THEN 'regressed'
        WHEN
            oldest_open_at >= DATE_TRUNC('minute', last_resolved_by_person_at)
            AND last_first_attempt_at > last_resolved_by_person_at
            AND (
                resolved_in_version IS NULL OR last_unfixed_at > last_resolved_by_person_at
            )
            THEN 'regressed'
        WHEN
            is_fixed
            AND (
                first_seen_at > now - INTERVAL '24' HOUR
                OR NOT (failure_count_1h >= 10 AND failure_count_1h > escalation_limit)
            )
            THEN 'fixed'
        WHEN first_seen_at > now - INTERVAL '24' HOUR THEN 'new'
        WHEN failure_count_1h >= 10 AND failure_count_1h > escalation_limit THEN 'escalating'
        ELSE 'ongoing'
    END AS state,
    failure_count_1h >= 10 AND failure_count_1h > escalation_limit AS is_escalating,
    escalation_limit,
    error_class,
    template,
    frames,
    sample_failure_id,
    CAST(failure_count AS BIGINT) AS failure_count,
    CAST(failure_count_1h AS BIGINT) AS failure_count_1h,
    CAST(failure_count_24h AS BIGINT) AS failure_count_24h,
    first_seen_at,
    last_seen_at,
    last_resolved_at,
    services,
    consumers,
    tenant_count,
    CAST(open_count AS BIGINT) AS open_count,
    CAST(resolved_count AS BIGINT) AS resolved_count,
    CAST(parked_count AS BIGINT) AS parked_count,
    CAST(discarded_count AS BIGINT) AS discarded_count,
    CAST(reopened_count AS BIGINT) AS reopened_count,
    redrive_count,
    redrive_succeeded_count,
    redrive_chance,
    versions,
    resolved_in_version,
    regressed_in_version,
    cause_id
FROM judged
ORDER BY failure_count DESC, group_id
