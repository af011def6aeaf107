-- Share of failures still open so long after they failed (Kaplan-Meier), and how the others ended
-- (Aalen-Johansen). PostgreSQL, as build-marts last computed it.
--
-- Grain: one row per time at which one ended, of the first three days.
--   hours  since it failed; the rest are shares that add up to 1
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
