-- What is the outcome of one image, and of each of its faces?
-- required parameter facility: facility, the facility of the image
-- required parameter day: date, its capture day
-- required parameter key: text, its key in S3
SELECT
    r.outcome, r.reason, r.emotion, r.called_class, r.face_count,
    f.face_index, f.p_happy, f.p_sad, f.p_neither, f.emotion AS face_emotion,
    f.called_class AS face_called_class,
    f.box_x, f.box_y, f.box_width, f.box_height,
    left(r.model_version, 12) AS model,
    r.scored_at
FROM fer.image_result AS r
LEFT JOIN fer.face_result AS f
    USING (facility_id, capture_day, image_key, member, model_version)
WHERE r.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), 'north-mall')
    AND r.capture_day = coalesce(nullif(current_setting('fer.day', true), ''), '2026-03-01')::date
    AND r.image_key = coalesce(
        nullif(current_setting('fer.key', true), ''), 'north-mall/2026-03-01/000001.jpg')
ORDER BY r.scored_at DESC, f.face_index;
