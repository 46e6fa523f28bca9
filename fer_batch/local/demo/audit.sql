-- name: list_revisions
-- The summaries of a facility without and with an audit, the oldest revision of a period first.
SELECT period, first_day, capture_day AS last_day, method, audit_labels,
    happy_rate, happy_rate_low, happy_rate_high
FROM fer.satisfaction_summary
WHERE facility_id = :facility_id
    AND capture_day BETWEEN :first_day AND :last_day
    AND method IN ('benchmark', 'local')
ORDER BY period, capture_day, revision;
