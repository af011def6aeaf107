-- Failures with the part of the rule in which each one counts. PostgreSQL; reads `scopes`.
--
-- Grain: one row per failure, later rows of a redrive chain left out.
--   scope, above  name and threshold of the first part of the rule that matches
--   service       the service that failed, else the one that published
--   error_class   last dotted segment of error_type
SELECT
    s.scope,
    s.above,
    f.id,
    f.dlq_timestamp,
    f.created_at,
    f.status,
    f.alert_sent,
    f.parse_error,
    f.original_stream,
    f.consumer_name,
    COALESCE(f.consumer_service, f.source_service) AS service,
    REGEXP_REPLACE(f.error_type, '^.*[.]', '') AS error_class
FROM dlq.failed_events AS f
CROSS JOIN LATERAL (
    SELECT
        p.scope,
        p.above
    FROM scopes AS p
    WHERE
        COALESCE(f.consumer_service, f.source_service) LIKE p.service
        AND COALESCE(f.tenant_id, '') LIKE p.tenant
    ORDER BY p.position
    LIMIT 1
) AS s
WHERE f.status <> 'superseded'
