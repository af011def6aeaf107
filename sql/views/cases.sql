-- The cases and how they stand: what `pipelines/deadletter/cases.py` folds, said in SQL.
--
-- Owner: pipelines/analysis
-- Grain: one row per case, live or closed; the later rows of a redrive chain (superseded) are not
-- cases.
--   failure_id     the root failure
--   opened_at      when it became a dead letter (dlq_timestamp), UTC
--   status         pending | retried | parked | resolved | discarded
--   redrive_count  redrives that ended without success
--   not_before     when a redrive that was asked for is due, null where none was
--   closed_at      when it was resolved or discarded, null while open
--   cause          open | automatic_redrive | manual_redrive | manual | discarded
--   log_position   place in the whole log, see `epochs`
--   the rest       as in `failures`
--
-- Four steps. (1) Nothing reopens a case, so its first closing message ends it, whatever its
-- status was. (2) A failure of a redrive is a case of its own where its root is none, was resolved
-- before, or failed in another consumer; hence down the chain from the roots. (3) What happened
-- between opening and closing is folded in log order, one recursion a step, because each step
-- depends on the status before. (4) Together.
WITH RECURSIVE closings AS (
    SELECT failure_id, log_position, kind, happened_at
    FROM (
        SELECT
            f.failure_id,
            l.log_position,
            l.kind,
            l.happened_at,
            ROW_NUMBER() OVER (PARTITION BY f.failure_id ORDER BY l.log_position) AS nth
        FROM failures AS f
        INNER JOIN case_log AS l
            ON l.failure_id = f.failure_id AND l.log_position > f.log_position
        WHERE
            l.kind IN ('triage.resolved', 'triage.discarded')
            OR (
                l.kind = 'redrive.succeeded'
                AND (f.consumer_address IS NULL OR f.consumer_address = l.consumer)
            )
    ) AS numbered
    WHERE nth = 1
),

letters AS (
    SELECT
        f.failure_id,
        f.root_failure_id,
        f.log_position,
        f.consumer_address,
        c.log_position AS closed_position,
        CASE WHEN c.kind <> 'triage.discarded' THEN c.log_position END AS resolved_position
    FROM failures AS f
    LEFT JOIN closings AS c ON c.failure_id = f.failure_id
),

lineage AS (
    SELECT
        l.failure_id,
        l.log_position,
        l.closed_position,
        l.resolved_position,
        l.consumer_address,
        TRUE AS is_case
    FROM letters AS l
    LEFT JOIN letters AS root
        ON root.failure_id = l.root_failure_id AND root.log_position < l.log_position
    WHERE root.failure_id IS NULL

    UNION ALL

    SELECT
        l.failure_id,
        l.log_position,
        l.closed_position,
        l.resolved_position,
        l.consumer_address,
        NOT root.is_case
        OR COALESCE(root.resolved_position < l.log_position, FALSE)
        OR (
            root.consumer_address IS NOT NULL
            AND root.consumer_address <> COALESCE(l.consumer_address, '')
        ) AS is_case
    FROM lineage AS root
    INNER JOIN letters AS l
        ON l.root_failure_id = root.failure_id AND l.log_position > root.log_position
),

steps AS (
    SELECT
        c.failure_id,
        l.kind,
        l.attempt,
        l.trigger,
        l.not_before,
        ROW_NUMBER() OVER (PARTITION BY c.failure_id ORDER BY l.log_position) AS step
    FROM lineage AS c
    INNER JOIN case_log AS l
        ON
            l.failure_id = c.failure_id
            AND l.log_position > c.log_position
            AND (c.closed_position IS NULL OR l.log_position < c.closed_position)
    WHERE
        c.is_case
        AND (
            l.kind IN (
                'redrive.requested',
                'redrive.published',
                'redrive.unroutable',
                'redrive.refused',
                'redrive.expired',
                'redrive.outcome_unknown',
                'triage.parked',
                'triage.unparked'
            )
            OR (
                l.kind = 'redrive.failed_again'
                AND (c.consumer_address IS NULL OR c.consumer_address = l.consumer)
            )
        )
),

fold AS (
    SELECT
        failure_id,
        CAST(0 AS BIGINT) AS step,
        CAST('pending' AS VARCHAR) AS status,
        CAST(0 AS INTEGER) AS redrive_count,
        CAST('automatic' AS VARCHAR) AS trigger,
        CAST(NULL AS TIMESTAMPTZ) AS not_before
    FROM steps
    WHERE step = 1

    UNION ALL

    SELECT
        failure_id,
        CAST(step AS BIGINT) AS step,
        CASE
            WHEN is_published THEN 'retried'
            WHEN is_hopeless THEN 'parked'
            WHEN is_failed AND (status = 'parked' OR attempt >= redrive_cap) THEN 'parked'
            WHEN is_failed THEN 'pending'
            WHEN kind = 'triage.parked' THEN 'parked'
            WHEN kind = 'triage.unparked' AND status = 'parked' THEN 'pending'
            ELSE status
        END AS status,
        CAST(
            CASE WHEN is_failed OR is_hopeless THEN attempt ELSE redrive_count END AS INTEGER
        ) AS redrive_count,
        CASE WHEN is_published THEN said_trigger ELSE trigger END AS trigger,
        CASE
            WHEN is_requested THEN said_not_before
            WHEN is_published OR is_failed OR is_hopeless THEN NULL
            ELSE not_before
        END AS not_before
    FROM (
        SELECT
            f.failure_id,
            s.step,
            s.kind,
            s.attempt,
            f.status,
            f.redrive_count,
            f.trigger,
            f.not_before,
            s.not_before AS said_not_before,
            r.redrive_cap,
            COALESCE(NULLIF(s.trigger, ''), 'automatic') AS said_trigger,
            -- An attempt that has ended is ended: what is said of it again, or late, is passed over.
            s.attempt > f.redrive_count
            AND s.kind = 'redrive.requested'
            AND f.status = 'pending' AS is_requested,
            s.attempt > f.redrive_count
            AND s.kind = 'redrive.published'
            AND f.status <> 'retried' AS is_published,
            s.attempt > f.redrive_count
            AND s.kind IN ('redrive.failed_again', 'redrive.outcome_unknown') AS is_failed,
            s.attempt > f.redrive_count
            AND s.kind IN ('redrive.unroutable', 'redrive.refused', 'redrive.expired')
                AS is_hopeless
        FROM fold AS f
        INNER JOIN steps AS s ON s.failure_id = f.failure_id AND s.step = f.step + 1
        CROSS JOIN redrive_rules AS r
    ) AS next_step
),

outcomes AS (
    SELECT f.failure_id, f.status, f.redrive_count, f.trigger, f.not_before
    FROM fold AS f
    INNER JOIN (SELECT failure_id, MAX(step) AS step FROM steps GROUP BY failure_id) AS last
        ON last.failure_id = f.failure_id AND last.step = f.step
)

SELECT
    f.failure_id,
    f.dlq_date,
    f.service,
    f.tenant_id,
    f.field_id,
    f.consumer_name,
    f.consumer_version,
    f.error_type,
    f.error_class,
    f.group_id,
    f.parent_id,
    f.template,
    f.frames,
    f.event_type,
    f.original_stream,
    f.original_sequence,
    f.first_attempt_at,
    f.dlq_timestamp AS opened_at,
    f.published_at,
    CASE
        WHEN c.kind = 'triage.discarded' THEN 'discarded'
        WHEN c.kind IS NOT NULL THEN 'resolved'
        ELSE COALESCE(o.status, 'pending')
    END AS status,
    COALESCE(o.redrive_count, 0) AS redrive_count,
    CASE WHEN c.kind IS NULL THEN o.not_before END AS not_before,
    c.happened_at AS closed_at,
    CASE
        WHEN c.kind IS NULL THEN 'open'
        WHEN c.kind = 'triage.discarded' THEN 'discarded'
        WHEN c.kind = 'triage.resolved' THEN 'manual'
        WHEN o.trigger = 'manual' THEN 'manual_redrive'
        ELSE 'automatic_redrive'
    END AS cause,
    f.dlq_sequence,
    f.epoch,
    f.log_position
FROM failures AS f
INNER JOIN lineage AS n ON n.failure_id = f.failure_id AND n.is_case
LEFT JOIN closings AS c ON c.failure_id = f.failure_id
LEFT JOIN outcomes AS o ON o.failure_id = f.failure_id
