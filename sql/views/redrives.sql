-- The redrives and their outcomes.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per (root failure, attempt) in the log, published or not.
--   failure_id    the root failure
--   dlq_date      the day of the dead letter that opened it
--   opening       which opening of the case it belongs to, see `openings`
--   attempt       1 for the first redrive, 1001 for the first after the case was reopened
--   trigger       automatic | manual, null if not given
--   published_at  when the redrive was published; null if the log does not say so
--   outcome       succeeded | failed_again | unroutable | refused | expired | too_late |
--                 outcome_unknown, or waiting; the first definite one counts, even after
--                 outcome_unknown
--   has_succeeded  whether the consumer handled it; null if the consumer reported no outcome
--   ended_at      when that happened, UTC
--   consumer_version  the version that succeeded or failed again; null where unknown
--   service, consumer_name, error_class, group_id  of the root failure
--
-- An outcome counts only from the consumer that failed, if known, or from the addressed consumer of
-- the latest redrive.
WITH ordered AS (
    SELECT
        l.failure_id,
        COALESCE(o.dlq_date, f.dlq_date) AS dlq_date,
        l.opening,
        l.attempt,
        REPLACE(l.kind, 'redrive.', '') AS outcome,
        l.trigger,
        l.happened_at,
        l.consumer_version,
        f.service,
        f.consumer_name,
        COALESCE(o.error_class, f.error_class) AS error_class,
        COALESCE(o.group_id, f.group_id) AS group_id,
        ROW_NUMBER() OVER (
            PARTITION BY l.failure_id, l.attempt
            ORDER BY
                CASE l.kind
                    WHEN 'redrive.published' THEN 3
                    WHEN 'redrive.outcome_unknown' THEN 2
                    ELSE 1
                END,
                l.log_position
        ) AS nth
    FROM case_log AS l
    INNER JOIN openings AS f
        ON
            f.failure_id = l.failure_id
            AND f.opening = 1
            AND f.log_position < l.log_position
    LEFT JOIN openings AS o
        ON o.failure_id = l.failure_id AND o.opening = l.opening AND o.opening > 1
    WHERE
        l.attempt > 0
        AND l.kind LIKE 'redrive.%'
        AND l.kind <> 'redrive.requested'
        AND (
            l.kind NOT IN ('redrive.succeeded', 'redrive.failed_again')
            OR f.consumer_address IS NULL
            OR f.consumer_address = l.consumer
            OR (l.handed_to = l.consumer AND l.handed_position > f.log_position)
        )
)

SELECT
    failure_id,
    MAX(dlq_date) AS dlq_date,
    MAX(opening) AS opening,
    attempt,
    MAX(trigger) AS trigger,
    MIN(CASE WHEN outcome = 'published' THEN happened_at END) AS published_at,
    MAX(CASE WHEN nth <> 1 THEN NULL WHEN outcome = 'published' THEN 'waiting' ELSE outcome END)
        AS outcome,
    MAX(CASE WHEN nth = 1 AND outcome IN ('succeeded', 'failed_again') THEN outcome END) = 'succeeded'
        AS has_succeeded,
    MAX(CASE WHEN nth = 1 AND outcome <> 'published' THEN happened_at END) AS ended_at,
    MAX(CASE WHEN nth = 1 THEN consumer_version END) AS consumer_version,
    MAX(service) AS service,
    MAX(consumer_name) AS consumer_name,
    MAX(error_class) AS error_class,
    MAX(group_id) AS group_id
FROM ordered
GROUP BY failure_id, attempt
