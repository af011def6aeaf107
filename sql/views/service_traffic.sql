-- Messages that consumers handled between two samples of their counters.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per sample of `service_totals`.
--   service, consumer  that counted: as in `service_totals`
--   published_at  server's time of the sample, UTC
--   handled, succeeded, retried, dead_lettered, skipped
--                 messages since the previous sample; for the first sample of a process, since its start
--
-- Counters are cumulative since a process started, and a restart begins at 0 with another
-- started_at; so the sum of a process's rows is its last value, and the sum over processes the
-- service's total.
SELECT
    service,
    consumer,
    published_at,
    handled - COALESCE(LAG(handled) OVER process, 0) AS handled,
    succeeded - COALESCE(LAG(succeeded) OVER process, 0) AS succeeded,
    retried - COALESCE(LAG(retried) OVER process, 0) AS retried,
    dead_lettered - COALESCE(LAG(dead_lettered) OVER process, 0) AS dead_lettered,
    skipped - COALESCE(LAG(skipped) OVER process, 0) AS skipped
FROM service_totals
WINDOW process AS (
    PARTITION BY service, consumer, started_at ORDER BY published_at, totals_sequence
)
