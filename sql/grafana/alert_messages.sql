-- The latest messages about alerts. PostgreSQL, on `alert_messages`.
--
-- Grain: one row per message and channel, newest first, at most 50.
SELECT
    created_at,
    channel,
    title,
    try_count,
    delivered_at,
    given_up_at
FROM dlq.alert_messages
ORDER BY id DESC
LIMIT 50
