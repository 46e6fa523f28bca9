INSERT INTO fer.face_result (
    facility_id, capture_day, image_key, member, model_version, face_index, box_x, box_y,
    box_width, box_height, detector_score, p_happy, p_sad, p_neither, is_uncertain
)
SELECT
    facility_id, capture_day, image_key, member, :model_version, face_index, box_x, box_y,
    box_width, box_height, detector_score, p_happy, p_sad, p_neither, is_uncertain
FROM pg_temp.staged_face
JOIN pg_temp.staged_image USING (facility_id, capture_day, image_key, member)
