-- What is over-represented among the failures of late, as build-marts last computed it. PostgreSQL.
--
-- Grain: one row per value, or pair of values.
SELECT
    subject,
    attribute,
    value,
    other_attribute,
    other_value,
    failure_count,
    share,
    baseline_share,
    risk_ratio
FROM mart_contributors
ORDER BY failure_count DESC
LIMIT 50
