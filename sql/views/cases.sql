-- The cases and their status: the SQL version of `pipelines/sahool_dlq/deadletter/cases.py`.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per case and opening: a case that was closed and failed again was reopened, and
-- has one more row. The later rows of a redrive chain (superseded) are not cases.
--   failure_id     the root failure
--   opening        1 for the first; the row with the largest number is the current state
--   opened_at      when it became a dead letter (dlq_timestamp), UTC
--   status         pending | retried | parked | resolved | discarded, or reopened: it was opened
--                  again, and the next opening has the current status
--   is_open        pending, retried or parked: this opening is not closed
--   redrive_count  redrives of this opening without success
--   not_before     when a requested redrive is due, null if none
--   closed_at      when it was resolved or discarded, null while open
--   cause          open | automatic_redrive | manual_redrive | manual | discarded
--   log_position   position in the whole log, see `epochs`
--   the rest       as in `openings`
--
-- Three steps. (1) A failure of a redrive is a separate case if its root is not a case or was
-- resolved before, if it failed in another consumer than the addressed one, or if the log has no
-- such redrive; else it is superseded. So chains are followed down from their roots. (2) Messages
-- between opening and closing are applied in log order, one recursion per step, because each step
-- depends on the status before. (3) Both are joined.
WITH RECURSIVE children AS (
    SELECT
        f.failure_id,
        f.root_failure_id,
        f.log_position,
        f.consumer_address,
        l.log_position AS told_position,
        CASE WHEN l.handed_to = l.consumer THEN l.handed_position END AS handed_position
    FROM openings AS f
    LEFT JOIN case_log AS l
        ON
            l.failure_id = f.root_failure_id
            AND l.said_position = f.log_position
            AND l.kind = 'redrive.failed_again'
    WHERE f.opening = 1 AND f.root_failure_id IS NOT NULL
),

roots AS (
    SELECT
        f.failure_id,
        f.root_failure_id,
        f.log_position,
        COALESCE(c.told_position, f.log_position) AS told_position,
        f.consumer_address
    FROM openings AS f
    LEFT JOIN children AS c ON c.failure_id = f.failure_id
    WHERE f.opening = 1 AND f.failure_id IN (SELECT root_failure_id FROM children)
),

reopened AS (
    SELECT failure_id, opening, log_position FROM openings WHERE opening > 1
),

resolutions AS (
    SELECT
        f.failure_id,
        f.closed_position AS since,
        f.closed_said AS since_said,
        n.log_position AS until
    FROM openings AS f
    LEFT JOIN reopened AS n ON n.failure_id = f.failure_id AND n.opening = f.opening + 1
    WHERE
        f.closed_kind <> 'triage.discarded'
        AND f.failure_id IN (SELECT root_failure_id FROM children)
),

lineage AS (
    SELECT l.failure_id, l.log_position, l.consumer_address, TRUE AS is_case
    FROM roots AS l
    LEFT JOIN roots AS root
        ON root.failure_id = l.root_failure_id AND root.log_position < l.told_position
    WHERE root.failure_id IS NULL

    UNION ALL

    SELECT
        l.failure_id,
        l.log_position,
        l.consumer_address,
        NOT root.is_case
        OR l.told_position IS NULL
        OR r.failure_id IS NOT NULL
        OR (
            root.consumer_address IS NOT NULL
            AND root.consumer_address <> COALESCE(l.consumer_address, '')
            AND COALESCE(l.handed_position, 0) <= root.log_position
        ) AS is_case
    FROM lineage AS root
    INNER JOIN children AS l
        ON
            l.root_failure_id = root.failure_id
            AND COALESCE(l.told_position, l.log_position) > root.log_position
    LEFT JOIN resolutions AS r
        ON
            r.failure_id = root.failure_id
            AND (
                r.since < l.told_position
                OR (r.since = l.told_position AND r.since_said < l.log_position)
            )
            AND (r.until IS NULL OR r.until > l.told_position)
),

superseded AS (
    SELECT failure_id FROM lineage WHERE NOT is_case
),

-- A late message about an attempt of an earlier opening does not affect this one; a monitor that
-- requests a redrive does not know how often the case was opened.
steps AS (
    SELECT
        f.failure_id,
        f.opening,
        l.kind,
        l.nth,
        l.trigger,
        l.not_before,
        l.redrive_cap,
        ROW_NUMBER() OVER (
            PARTITION BY f.failure_id, f.opening
            ORDER BY
                l.log_position, CASE WHEN l.said_position < l.log_position THEN 1 ELSE 0 END, l.said_position
        ) AS step
    FROM openings AS f
    INNER JOIN case_log AS l
        ON
            l.failure_id = f.failure_id
            AND l.log_position > f.log_position
            AND (
                f.closed_position IS NULL
                OR l.log_position < f.closed_position
                OR (
                    l.log_position = f.closed_position
                    AND (l.said_position = l.log_position OR l.said_position < f.closed_said)
                )
            )
    WHERE
        (
            l.kind IN ('redrive.requested', 'triage.parked', 'triage.unparked')
            OR (
                l.opening >= f.opening
                AND (
                    l.kind IN (
                        'redrive.published',
                        'redrive.unroutable',
                        'redrive.refused',
                        'redrive.expired',
                        'redrive.too_late',
                        'redrive.outcome_unknown'
                    )
                    OR (
                        l.kind = 'redrive.failed_again'
                        AND (
                            f.consumer_address IS NULL
                            OR f.consumer_address = l.consumer
                            OR (l.handed_to = l.consumer AND l.handed_position > f.first_position)
                        )
                    )
                )
            )
        )
        AND f.failure_id NOT IN (SELECT failure_id FROM superseded)
),

fold AS (
    SELECT
        failure_id,
        opening,
        CAST(0 AS BIGINT) AS step,
        CAST('pending' AS VARCHAR) AS status,
        CAST(0 AS INTEGER) AS redrive_count,
        CAST('automatic' AS VARCHAR) AS trigger,
        CAST(NULL AS TIMESTAMPTZ) AS not_before,
        CAST(NULL AS BIGINT) AS redrive_cap
    FROM steps
    WHERE step = 1

    UNION ALL

    SELECT
        failure_id,
        opening,
        CAST(step AS BIGINT) AS step,
        CASE
            WHEN is_published THEN 'retried'
            WHEN is_hopeless THEN 'parked'
            WHEN is_failed AND (status = 'parked' OR nth >= COALESCE(redrive_cap, default_redrive_cap)) THEN 'parked'
            WHEN is_failed THEN 'pending'
            WHEN kind = 'triage.parked' THEN 'parked'
            WHEN kind = 'triage.unparked' AND status = 'parked' THEN 'pending'
            ELSE status
        END AS status,
        CAST(
            CASE WHEN is_failed OR is_hopeless THEN nth ELSE redrive_count END AS INTEGER
        ) AS redrive_count,
        CASE WHEN is_published THEN said_trigger ELSE trigger END AS trigger,
        CASE
            WHEN is_requested THEN said_not_before
            WHEN is_published OR is_failed OR is_hopeless THEN NULL
            ELSE not_before
        END AS not_before,
        CASE WHEN is_told THEN said_redrive_cap ELSE redrive_cap END AS redrive_cap
    FROM (
        SELECT
            f.failure_id,
            f.opening,
            s.step,
            s.kind,
            s.nth,
            f.status,
            f.redrive_count,
            f.trigger,
            f.not_before,
            s.not_before AS said_not_before,
            f.redrive_cap,
            s.redrive_cap AS said_redrive_cap,
            r.default_redrive_cap,
            COALESCE(NULLIF(s.trigger, ''), 'automatic') AS said_trigger,
            -- An attempt ends once: repeated or late number of messages about it are ignored.
            s.nth > f.redrive_count
            AND s.kind = 'redrive.requested'
            AND f.status = 'pending' AS is_requested,
            s.nth > f.redrive_count AND s.kind = 'redrive.published' AS is_told,
            s.nth > f.redrive_count
            AND s.kind = 'redrive.published'
            AND f.status <> 'retried' AS is_published,
            s.nth > f.redrive_count
            AND s.kind IN ('redrive.failed_again', 'redrive.outcome_unknown') AS is_failed,
            s.nth > f.redrive_count
            AND s.kind IN (
                'redrive.unroutable', 'redrive.refused', 'redrive.expired', 'redrive.too_late'
            ) AS is_hopeless
        FROM fold AS f
        INNER JOIN steps AS s
            ON
                s.failure_id = f.failure_id
                AND s.opening = f.opening
                AND s.step = f.step + 1
        CROSS JOIN redrive_rules AS r
    ) AS next_step
),

outcomes AS (
    SELECT f.failure_id, f.opening, f.status, f.redrive_count, f.trigger, f.not_before
    FROM fold AS f
    INNER JOIN (
        SELECT failure_id, opening, MAX(step) AS step FROM steps GROUP BY failure_id, opening
    ) AS last
        ON
            last.failure_id = f.failure_id
            AND last.opening = f.opening
            AND last.step = f.step
)

SELECT
    f.failure_id,
    f.opening,
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
    f.cause_id,
    f.template,
    f.frames,
    f.event_type,
    f.original_stream,
    f.original_sequence,
    f.first_attempt_at,
    f.dlq_timestamp AS opened_at,
    f.published_at,
    CASE
        WHEN n.failure_id IS NOT NULL THEN 'reopened'
        WHEN f.closed_kind = 'triage.discarded' THEN 'discarded'
        WHEN f.closed_kind IS NOT NULL THEN 'resolved'
        ELSE COALESCE(o.status, 'pending')
    END AS status,
    f.closed_kind IS NULL AS is_open,
    COALESCE(o.redrive_count, 0) AS redrive_count,
    CASE WHEN f.closed_kind IS NULL THEN o.not_before END AS not_before,
    f.closed_at,
    CASE
        WHEN f.closed_kind IS NULL THEN 'open'
        WHEN f.closed_kind = 'triage.discarded' THEN 'discarded'
        WHEN f.closed_kind = 'triage.resolved' THEN 'manual'
        WHEN o.trigger = 'manual' THEN 'manual_redrive'
        ELSE 'automatic_redrive'
    END AS cause,
    f.dlq_sequence,
    f.epoch,
    f.log_position
FROM openings AS f
LEFT JOIN superseded AS s ON s.failure_id = f.failure_id
LEFT JOIN reopened AS n ON n.failure_id = f.failure_id AND n.opening = f.opening + 1
LEFT JOIN outcomes AS o ON o.failure_id = f.failure_id AND o.opening = f.opening
WHERE s.failure_id IS NULL
