-- The faces of the results that the chunk replaces.
DELETE FROM fer.face_result AS f
USING pg_temp.staged_image AS s
WHERE f.facility_id = s.facility_id
    AND f.capture_day = s.capture_day
    AND f.image_key = s.image_key
    AND f.member = s.member
    AND f.model_version = :model_version
