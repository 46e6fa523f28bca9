-- The faces in a day's images: one in each crop, none to five in each frame, uniformly. One image
-- in 500 is broken and has none. Probabilities come from random(), seeded by the caller; 65 % of the
-- faces are neither, and 5 in 6 of the others are happy.
INSERT INTO fer.face_result (
    facility_id, capture_day, image_key, member, model_version, face_index, box_x, box_y,
    box_width, box_height, detector_score, p_happy, p_sad, p_neither, emotion,
    called_class
)
SELECT
    facility_id, :day, image_key, '', :model_version, face_index, 90 * face_index, 200, 80, 80, 0.9,
    CASE WHEN is_neither THEN 0.2 WHEN is_happy THEN larger ELSE (1 - larger) / 2 END,
    CASE WHEN is_neither THEN 0.2 WHEN is_happy THEN (1 - larger) / 2 ELSE larger END,
    CASE WHEN is_neither THEN 0.6 ELSE (1 - larger) / 2 END,
    CASE WHEN is_happy OR is_neither THEN 'Happy' ELSE 'Sad' END,
    CASE WHEN is_neither OR larger < 0.5 THEN 'neither' WHEN is_happy THEN 'happy' ELSE 'sad' END
FROM (
    SELECT
        i.facility_id, i.image_key, face_index,
        random() < 0.65 AS is_neither,
        random() < 5 / 6.0 AS is_happy,
        0.4 + 0.6 * random() AS larger
    FROM (
        SELECT facility_id, image_key, CAST(left(right(image_key, 10), 6) AS integer) AS n
        FROM fer.image
        WHERE capture_day = :day AND facility_id = ANY (CAST(:facility_ids AS text[]))
        ORDER BY facility_id, image_key
    ) AS i
    JOIN unnest(CAST(:facility_ids AS text[]), CAST(:are_frames AS boolean[]))
        AS f (facility_id, has_frames) USING (facility_id)
    CROSS JOIN LATERAL generate_series(
        0, CASE WHEN n % 500 = 0 THEN 0 WHEN has_frames THEN n % 6 ELSE 1 END - 1) AS face_index
) AS drawn
