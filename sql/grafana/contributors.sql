-- Values that are over-represented among recent failures, from the last run of build-marts.
-- PostgreSQL.
--
-- Grain: one row per value, or pair of values; those of the last 24 hours first, then by group.
SELECT
    subject,
    CONCAT_WS(
        ' and ',
        attribute || ' = ' || value,
        other_attribute || ' = ' || other_value
    ) AS what,
    failure_count,
    share,
    baseline_share,
    risk_ratio
FROM dlq.mart_contributors
ORDER BY subject = 'last 24 hours' DESC, failure_count DESC
LIMIT 50
