-- The redrives and how they ended.
--
-- Owner: pipelines/analysis
-- Grain: one row per (root failure, attempt) that the log names, published or not.
--   failure_id    the root failure
--   dlq_date      the day of its dead letter
--   attempt       1 for the first redrive
--   trigger       automatic | manual, null where it was not said
--   published_at  when the redrive was published; null where the log does not say so
--   outcome       succeeded | failed_again | unroutable | refused | expired | outcome_unknown,
--                 or waiting; the first definite one counts, also when it comes after a silence
--                 that was called outcome_unknown
--   ended_at      when that happened, UTC
--   service, consumer_name, error_class, group_id  of the root failure
--
-- An outcome counts only from the consumer that failed, where it is known.
WITH ordered AS (
    SELECT
        l.failure_id,
        f.dlq_date,
        l.attempt,
        REPLACE(l.kind, 'redrive.', '') AS outcome,
        l.trigger,
        l.happened_at,
        f.service,
        f.consumer_name,
        f.error_class,
        f.group_id,
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
    INNER JOIN failures AS f ON f.failure_id = l.failure_id AND f.log_position < l.log_position
    WHERE
        l.attempt > 0
        AND l.kind LIKE 'redrive.%'
        AND l.kind <> 'redrive.requested'
        AND (
            l.kind NOT IN ('redrive.succeeded', 'redrive.failed_again')
            OR f.consumer_address IS NULL
            OR f.consumer_address = l.consumer
        )
)

SELECT
    failure_id,
    MAX(dlq_date) AS dlq_date,
    attempt,
    MAX(trigger) AS trigger,
    MIN(CASE WHEN outcome = 'published' THEN happened_at END) AS published_at,
    MAX(CASE WHEN nth <> 1 THEN NULL WHEN outcome = 'published' THEN 'waiting' ELSE outcome END)
        AS outcome,
    MAX(CASE WHEN nth = 1 AND outcome <> 'published' THEN happened_at END) AS ended_at,
    MAX(service) AS service,
    MAX(consumer_name) AS consumer_name,
    MAX(error_class) AS error_class,
    MAX(group_id) AS group_id
FROM ordered
GROUP BY failure_id, attempt
