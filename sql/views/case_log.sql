-- All messages about cases: outcomes, decisions, and redrives that failed again.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per message that names a root failure; as in the Python code, messages are left
-- out that could not be read, or that name a redrive without a redrive.published with that id and
-- attempt in the log (`is_founded` in `deadletter/cases.py`).
--   failure_id    the root failure
--   log_position  position in the whole log, see `epochs`; a message before its redrive.published
--                 has the position of that one
--   said_position  its own position
--   kind          redrive.requested | published | succeeded | failed_again | unroutable | refused | expired |
--                 too_late | outcome_unknown, triage.resolved | discarded | parked | unparked | alerted
--   attempt       1 for the first redrive, 1001 for the first after the case was reopened, and so
--                 on; 0 if there is none
--   opening       which opening of the case the attempt belongs to, see `openings`; 1 for none
--   nth           1 for the first redrive of that opening; 0 if there is none
--   trigger       automatic | manual, null if not given
--   consumer      <stream>/<durable> that reports, or is addressed; null where unknown
--   consumer_version  of redrive.succeeded and failed_again: the version that reports it; null where
--                 unknown
--   handed_to     the consumer of the latest redrive.published until then, empty if it names none
--   handed_position  its position in the whole log
--   not_before    when a requested redrive is due, UTC; null for every other kind
--   redrive_cap   of redrive.published: failed redrives after which the case is parked; null where
--                 it was not said
--   resolved_in_version  of triage.resolved: the version that repairs it; null where not said
--   happened_at   time of the sender, UTC
WITH chained AS (
    SELECT
        d.failure_id,
        MIN(CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + d.dlq_sequence)
            AS log_position
    FROM dead_letters AS d
    INNER JOIN epochs AS e ON e.epoch = d.epoch
    WHERE
        d.failure_id IN (
            SELECT c.failure_id FROM dead_letters AS c WHERE c.root_failure_id IS NOT NULL
        )
    GROUP BY d.failure_id
),

first_letters AS (
    SELECT
        d.failure_id,
        MIN(CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + d.dlq_sequence)
            AS log_position
    FROM dead_letters AS d
    INNER JOIN epochs AS e ON e.epoch = d.epoch
    WHERE d.failure_id IN (
        SELECT p.failure_id FROM case_events AS p WHERE p.kind = 'redrive.published'
    )
    GROUP BY d.failure_id
),

announced AS (
    SELECT
        c.failure_id,
        c.redrive_id,
        ARG_MIN_NULL(
            c.attempt,
            CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + c.dlq_sequence
        ) AS attempt,
        MIN(CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + c.dlq_sequence)
            AS log_position
    FROM case_events AS c
    INNER JOIN epochs AS e ON e.epoch = c.epoch
    INNER JOIN first_letters AS f
        ON
            f.failure_id = c.failure_id
            AND f.log_position
            < CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + c.dlq_sequence
    WHERE c.kind = 'redrive.published' AND c.parse_error IS NULL AND c.redrive_id IS NOT NULL
    GROUP BY c.failure_id, c.redrive_id
),

messages AS (
    SELECT
        c.failure_id,
        CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + c.dlq_sequence
            AS log_position,
        c.kind,
        COALESCE(c.attempt, 0) AS attempt,
        c.trigger,
        c.consumer,
        c.consumer_version,
        CASE WHEN c.kind = 'redrive.requested' THEN COALESCE(c.not_before, c."at") END
            AS not_before,
        c.redrive_cap,
        c.resolved_in_version,
        c."at" AS happened_at,
        CASE
            WHEN c.kind = 'redrive.succeeded' OR c.kind LIKE 'triage.%' THEN c.redrive_id
        END AS named_id
    FROM case_events AS c
    INNER JOIN epochs AS e ON e.epoch = c.epoch
    WHERE c.failure_id IS NOT NULL AND c.parse_error IS NULL

    UNION ALL

    SELECT
        d.root_failure_id AS failure_id,
        f.log_position,
        'redrive.failed_again' AS kind,
        COALESCE(d.redrive_attempt, 0) AS attempt,
        CAST(NULL AS VARCHAR) AS trigger,
        NULLIF(d.original_stream, '') || '/' || NULLIF(d.consumer_name, '') AS consumer,
        CAST(d.consumer_version AS VARCHAR) AS consumer_version,
        CAST(NULL AS TIMESTAMPTZ) AS not_before,
        CAST(NULL AS BIGINT) AS redrive_cap,
        CAST(NULL AS VARCHAR) AS resolved_in_version,
        d.dlq_timestamp AS happened_at,
        d.redrive_id AS named_id
    FROM dead_letters AS d
    INNER JOIN epochs AS e ON e.epoch = d.epoch
    INNER JOIN chained AS f
        ON
            f.failure_id = d.failure_id
            AND f.log_position
            = CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + d.dlq_sequence
    WHERE d.root_failure_id IS NOT NULL
),

founded AS (
    SELECT
        m.failure_id,
        GREATEST(m.log_position, COALESCE(a.log_position, m.log_position)) AS log_position,
        m.log_position AS said_position,
        m.kind,
        m.attempt,
        m.trigger,
        m.consumer,
        m.consumer_version,
        m.not_before,
        m.redrive_cap,
        m.resolved_in_version,
        m.happened_at
    FROM messages AS m
    LEFT JOIN announced AS a
        ON a.failure_id = m.failure_id AND a.redrive_id = m.named_id AND a.attempt = m.attempt
    WHERE m.named_id IS NULL OR a.redrive_id IS NOT NULL
)

SELECT
    m.failure_id,
    m.log_position,
    m.said_position,
    m.kind,
    m.attempt,
    (GREATEST(m.attempt, 1) - 1) // r.attempts_per_opening + 1 AS opening,
    m.attempt - (GREATEST(m.attempt, 1) - 1) // r.attempts_per_opening * r.attempts_per_opening
        AS nth,
    m.trigger,
    m.consumer,
    m.consumer_version,
    LAST_VALUE(CASE WHEN m.kind = 'redrive.published' THEN COALESCE(m.consumer, '') END IGNORE NULLS)
        OVER (PARTITION BY m.failure_id ORDER BY m.log_position) AS handed_to,
    MAX(CASE WHEN m.kind = 'redrive.published' THEN m.log_position END)
        OVER (PARTITION BY m.failure_id ORDER BY m.log_position) AS handed_position,
    m.not_before,
    m.redrive_cap,
    m.resolved_in_version,
    m.happened_at
FROM founded AS m
CROSS JOIN redrive_rules AS r
