SELECT image_key, outcome, emotion, is_uncertain, face_count, run_id
FROM fer.image_result
WHERE facility_id = ANY (:facility_ids)
  AND capture_day = :capture_day
  AND model_version = :model_version
