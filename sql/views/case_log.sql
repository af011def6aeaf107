-- Everything that happened to cases: outcomes, decisions, and redrives that failed again.
--
-- Owner: pipelines/analysis
-- Grain: one row per message that names a root failure; messages that could not be read are left
-- out, as they are by the fold.
--   failure_id    the root failure
--   log_position  place in the whole log, see `epochs`
--   kind          redrive.requested | published | succeeded | failed_again | unroutable | refused | expired |
--                 outcome_unknown, triage.resolved | discarded | parked | unparked | alerted
--   attempt       1 for the first redrive, 0 where there is none
--   trigger       automatic | manual, null where it was not said
--   consumer      <stream>/<durable> that speaks, or is addressed; null where unknown
--   not_before    when a redrive that was asked for is due, UTC; null for every other kind
--   happened_at   when the sender says it happened, UTC
SELECT
    c.failure_id,
    CAST(e.epoch_number AS DECIMAL(38, 0)) * 100000000000000000000 + c.dlq_sequence
        AS log_position,
    c.kind,
    COALESCE(c.attempt, 0) AS attempt,
    c.trigger,
    c.consumer,
    CASE WHEN c.kind = 'redrive.requested' THEN COALESCE(c.not_before, c."at") END AS not_before,
    c."at" AS happened_at
FROM case_events AS c
INNER JOIN epochs AS e ON e.epoch = c.epoch
WHERE c.failure_id IS NOT NULL AND c.parse_error IS NULL

UNION ALL

SELECT
    root_failure_id AS failure_id,
    log_position,
    'redrive.failed_again' AS kind,
    COALESCE(redrive_attempt, 0) AS attempt,
    CAST(NULL AS VARCHAR) AS trigger,
    consumer_address AS consumer,
    CAST(NULL AS TIMESTAMPTZ) AS not_before,
    dlq_timestamp AS happened_at
FROM failures
WHERE root_failure_id IS NOT NULL
