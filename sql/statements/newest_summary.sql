SELECT *
FROM fer.satisfaction_summary
WHERE facility_id = :facility_id AND capture_day = :capture_day
ORDER BY revision DESC
LIMIT 1
