-- The results of a day's images, from the faces that were generated for them.
INSERT INTO fer.image_result (
    facility_id, capture_day, image_key, member, model_version, etag, outcome, reason, emotion,
    called_class, p_happy, p_sad, p_neither, face_count, width_px, height_px, size_bytes, run_id,
    scored_at
)
SELECT
    i.facility_id, i.capture_day, i.image_key, i.member, :model_version, i.etag,
    CASE WHEN is_broken THEN 'unreadable' WHEN f.faces IS NULL THEN 'no_face' ELSE 'scored' END,
    CASE WHEN is_broken THEN 'JPEG ends early' ELSE '' END,
    CASE WHEN f.p_happy >= f.p_sad THEN 'Happy' WHEN f.p_happy < f.p_sad THEN 'Sad' END,
    CASE
        WHEN f.faces IS NULL THEN NULL
        WHEN f.p_happy >= 0.5 THEN 'happy'
        WHEN f.p_sad >= 0.4 THEN 'sad'
        ELSE 'neither'
    END,
    f.p_happy, f.p_sad, f.p_neither, coalesce(f.faces, 0),
    CASE WHEN NOT is_broken THEN 640 END, CASE WHEN NOT is_broken THEN 480 END,
    i.size_bytes, :run_id, i.listed_at
FROM (
    SELECT *, CAST(left(right(image_key, 10), 6) AS integer) % 500 = 0 AS is_broken
    FROM fer.image
    WHERE capture_day = :day
) AS i
LEFT JOIN (
    SELECT
        facility_id, image_key,
        count(*) AS faces,
        avg(p_happy) AS p_happy,
        avg(p_sad) AS p_sad,
        avg(p_neither) AS p_neither
    FROM fer.face_result
    WHERE capture_day = :day
    GROUP BY facility_id, image_key
) AS f USING (facility_id, image_key)
ORDER BY i.facility_id, i.image_key
