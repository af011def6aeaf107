-- The openings of failures: one for the first dead letter, and one more for each reopening. The
-- base of `cases` and `redrives`; `failures` has the current state.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per failure_id and opening. A redrive that failed again is a failure too; `cases`
-- has only the live rows of chains.
--   opening           1 for the first dead letter; one more for each later one whose first attempt
--                     is after the closing of the case. Other repeats open nothing
--   log_position      position in the whole log, see `epochs`
--   consumer_address  <stream>/<durable> of the failing consumer, null where a part is unknown
--   first_position    position of its first dead letter
--   seen_count        number of messages about this failure
--   closed_position, closed_said, closed_kind, closed_at  the message that closes this opening, if
--                  it is a case, with both of its positions in `case_log`; null while open
--   the rest          as in `dead_letters`, of the dead letter that opened it
WITH RECURSIVE letters AS (
    SELECT
        d.failure_id,
        CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + d.dlq_sequence
            AS log_position,
        NULLIF(d.original_stream, '') || '/' || NULLIF(d.consumer_name, '') AS consumer_address,
        d.first_attempt_at
    FROM dead_letters AS d
    INNER JOIN epochs AS e ON e.epoch = d.epoch
),

firsts AS (
    SELECT
        failure_id,
        MIN(log_position) AS log_position,
        ARG_MIN_NULL(first_attempt_at, log_position) AS first_attempt_at,
        ARG_MIN_NULL(COALESCE(consumer_address, ''), log_position) AS consumer_address,
        COUNT(*) AS seen_count
    FROM letters
    GROUP BY failure_id
),

repeats AS (
    SELECT l.failure_id, l.log_position, l.first_attempt_at
    FROM letters AS l
    INNER JOIN firsts AS f ON f.failure_id = l.failure_id AND f.log_position < l.log_position
    WHERE f.seen_count > 1
),

closings AS (
    SELECT
        f.failure_id,
        l.log_position,
        l.said_position,
        l.kind,
        l.happened_at,
        CASE WHEN l.kind = 'redrive.succeeded' THEN l.opening END AS opening,
        ROW_NUMBER() OVER (
            PARTITION BY f.failure_id ORDER BY l.log_position, l.said_position
        ) AS nth
    FROM firsts AS f
    INNER JOIN case_log AS l
        ON l.failure_id = f.failure_id AND l.log_position > f.log_position
    WHERE
        l.kind IN ('triage.resolved', 'triage.discarded')
        OR (
            l.kind = 'redrive.succeeded'
            AND (
                f.consumer_address = ''
                OR f.consumer_address = l.consumer
                OR (l.handed_to = l.consumer AND l.handed_position > f.log_position)
            )
        )
),

openings AS (
    SELECT
        f.failure_id,
        CAST(1 AS BIGINT) AS opening,
        f.log_position,
        f.first_attempt_at,
        c.log_position AS closed_position,
        c.said_position AS closed_said,
        c.kind AS closed_kind,
        c.happened_at AS closed_at
    FROM firsts AS f
    LEFT JOIN closings AS c ON c.failure_id = f.failure_id AND c.nth = 1

    UNION ALL

    -- The next dead letter whose first attempt is after the closing, with its own closing. A late
    -- success of an earlier opening's redrive does not close it.
    SELECT
        failure_id,
        opening,
        log_position,
        first_attempt_at,
        closed_position,
        closed_said,
        closed_kind,
        closed_at
    FROM (
        SELECT
            o.failure_id,
            CAST(o.opening + 1 AS BIGINT) AS opening,
            r.log_position,
            r.first_attempt_at,
            c.log_position AS closed_position,
            c.said_position AS closed_said,
            c.kind AS closed_kind,
            c.happened_at AS closed_at,
            ROW_NUMBER() OVER (
                PARTITION BY o.failure_id ORDER BY r.log_position, c.log_position, c.said_position
            ) AS nth
        FROM openings AS o
        INNER JOIN repeats AS r
            ON
                r.failure_id = o.failure_id
                AND r.log_position > o.closed_position
                AND r.first_attempt_at > o.closed_at
                AND r.first_attempt_at > o.first_attempt_at
        LEFT JOIN closings AS c
            ON
                c.failure_id = o.failure_id
                AND c.log_position > r.log_position
                AND (c.opening IS NULL OR c.opening > o.opening)
    ) AS next_opening
    WHERE nth = 1
)

SELECT
    d.failure_id,
    o.opening,
    o.log_position,
    d.epoch,
    d.dlq_sequence,
    d.published_at,
    d.dlq_date,
    f.log_position AS first_position,
    f.seen_count,
    d.root_failure_id,
    d.redrive_id,
    d.redrive_attempt,
    d.event_id,
    d.event_type,
    d.original_subject,
    d.original_stream,
    d.original_sequence,
    d.source_service,
    d.service,
    d.consumer_name,
    d.consumer_version,
    NULLIF(f.consumer_address, '') AS consumer_address,
    d.tenant_id,
    d.field_id,
    d.error_type,
    d.error_class,
    d.error_message,
    d.retry_count,
    d.first_attempt_at,
    d.last_attempt_at,
    d.dlq_timestamp,
    d.dlq_reason,
    d.parse_error,
    d.group_id,
    d.parent_id,
    d.cause_id,
    d.template,
    d.frames,
    o.closed_position,
    o.closed_said,
    o.closed_kind,
    o.closed_at
FROM dead_letters AS d
INNER JOIN epochs AS e ON e.epoch = d.epoch
INNER JOIN openings AS o
    ON
        o.failure_id = d.failure_id
        AND o.log_position
        = CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + d.dlq_sequence
INNER JOIN firsts AS f ON f.failure_id = d.failure_id
