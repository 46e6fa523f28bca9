-- What is the outcome of one image, and of each of its faces?
-- required parameter facility: facility, the facility of the image
-- required parameter day: date, its capture day
-- required parameter key: text, its key in S3
-- Role: fer_inspector
WITH asked AS (
    SELECT
        coalesce(nullif(current_setting('fer.facility', true), ''), 'north-mall') AS facility_id,
        coalesce(nullif(current_setting('fer.day', true), ''), '2026-03-01')::date AS capture_day,
        coalesce(nullif(current_setting('fer.key', true), ''), 'north-mall/2026-03-01/000001.jpg')
            AS image_key
)
SELECT
    r.outcome, r.reason, r.emotion, r.called_class, r.face_count,
    f.face_index, f.p_happy, f.p_sad, f.p_neither, f.emotion AS face_emotion,
    f.called_class AS face_called_class,
    f.box_x, f.box_y, f.box_width, f.box_height,
    left(r.model_version, 12) AS model,
    r.scored_at
-- With row-level security, only a condition on a subquery makes each table use its index.
FROM fer.image_result AS r
LEFT JOIN fer.face_result AS f
    ON f.facility_id = (SELECT facility_id FROM asked)
    AND f.capture_day = (SELECT capture_day FROM asked)
    AND f.image_key = (SELECT image_key FROM asked)
    AND f.member = r.member
    AND f.model_version = r.model_version
WHERE r.facility_id = (SELECT facility_id FROM asked)
    AND r.capture_day = (SELECT capture_day FROM asked)
    AND r.image_key = (SELECT image_key FROM asked)
ORDER BY r.scored_at DESC, f.face_index;
