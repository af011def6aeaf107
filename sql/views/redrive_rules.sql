-- The settings that SQL needs, as they are by default; `create_views` writes those in force.
--
-- Grain: one row.
--   redrive_cap  redrives without success after which a case is parked
SELECT 3 AS redrive_cap
