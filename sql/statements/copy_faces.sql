COPY pg_temp.staged_face (
    facility_id, capture_day, image_key, member, face_index, box_x, box_y, box_width, box_height,
    detector_score, p_happy, p_sad, p_neither, is_uncertain
) FROM STDIN
