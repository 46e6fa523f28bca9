-- name: list_results
-- The results of the images of some days by one model version.
SELECT image_key, outcome, emotion, called_class, face_count, run_id
FROM fer.image_result
WHERE facility_id = ANY (:facility_ids)
    AND capture_day = ANY (:capture_days)
    AND model_version = :model_version;

-- name: list_periods
-- The published weeks and four weeks within some days.
SELECT *
FROM fer.satisfaction_period
WHERE facility_id = ANY (:facility_ids)
    AND first_day >= :first_day
    AND last_day <= :last_day
ORDER BY period DESC, facility_name, last_day;
