-- The faces of the results that the chunk replaces. The days, facilities and first and last key
-- are those of the chunk: whatever the plan, it reads no more than what lies between them.
DELETE FROM fer.face_result AS f
USING pg_temp.staged_image AS s
WHERE f.capture_day = ANY (:capture_days)
    AND f.facility_id = ANY (:facility_ids)
    AND f.image_key BETWEEN :first_key AND :last_key
    AND f.facility_id = s.facility_id
    AND f.capture_day = s.capture_day
    AND f.image_key = s.image_key
    AND f.member = s.member
    AND f.model_version = :model_version
