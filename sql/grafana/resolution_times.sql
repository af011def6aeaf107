-- Time until failures are ended. PostgreSQL, from the last run of build-marts.
--
-- Grain: one row per error type and service; null: not reached.
SELECT
    dimension,
    value,
    n,
    open_share,
    median_seconds,
    p90_seconds,
    rmst_24h_seconds
FROM dlq.mart_resolution_times
WHERE dimension IN ('overall', 'error_class', 'service')
ORDER BY dimension, n DESC
LIMIT 100
