-- The newest summaries of some facilities over a span of days, both ends included.
SELECT *
FROM fer.satisfaction_daily
WHERE facility_id = ANY(:facility_ids) AND capture_day BETWEEN :first_day AND :last_day
ORDER BY capture_day, facility_name, facility_id
