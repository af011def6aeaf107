-- The epochs of the log, numbered in order of their beginning.
--
-- Owner: pipelines/sahool_dlq/analysis
-- Grain: one row per epoch (dead-letter stream, its creation and fork).
--   epoch         text
--   epoch_number  integer from 1
--   began_at      time of the first message, UTC
--
-- A message's position in the whole log is (epoch_number, dlq_sequence), as one number:
-- epoch_number * 10^20 + dlq_sequence, `log_position` in the other views.
SELECT
    epoch,
    ROW_NUMBER() OVER (ORDER BY MIN(published_at), epoch) AS epoch_number,
    MIN(published_at) AS began_at
FROM (
    SELECT epoch, published_at FROM dead_letters
    UNION ALL
    SELECT epoch, published_at FROM case_events
) AS messages
GROUP BY epoch
