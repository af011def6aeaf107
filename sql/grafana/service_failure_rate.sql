-- Share of its messages that one service dead-lettered in 24 hours; null without totals. PostgreSQL.
--
-- Grain: one row, with the bounds of Wilson's 95 % interval.
SELECT
    failure_rate_24h AS rate,
    failure_rate_24h_low AS low,
    failure_rate_24h_high AS high
FROM dlq.mart_service_health
WHERE service = '$service'
