-- Share of failures still open after a time (Kaplan-Meier), and how the others ended
-- (Aalen-Johansen). PostgreSQL, from the last run of build-marts.
--
-- Grain: one row per time at which a failure ended, within the first three days.
--   hours  since the failure; the other columns are shares that add up to 1
SELECT
    t_seconds / 3600.0 AS hours,
    survival AS still_open,
    automatic_redrive,
    manual_redrive,
    manual AS resolved_by_hand,
    discarded
FROM dlq.mart_resolution_curves
WHERE dimension = 'overall' AND t_seconds <= 3 * 86400  -- a linear axis shows no more
ORDER BY t_seconds
