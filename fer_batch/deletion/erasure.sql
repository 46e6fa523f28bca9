-- name: find_erasable
-- The rows of a facility, of one of its days, or of one of its images, counted by day.
SELECT
    i.facility_id,
    i.capture_day,
    count(*) AS images,
    (SELECT count(*)
        FROM fer.face_result AS f
        WHERE f.facility_id = i.facility_id
            AND f.capture_day = i.capture_day
            AND (CAST(:image_key AS text) IS NULL OR f.image_key = :image_key)) AS faces
FROM fer.image AS i
WHERE i.facility_id = :facility_id
    AND (CAST(:capture_day AS date) IS NULL OR i.capture_day = :capture_day)
    AND (CAST(:image_key AS text) IS NULL OR i.image_key = :image_key)
GROUP BY i.facility_id, i.capture_day
ORDER BY i.capture_day;

-- name: is_erased
-- Whether the day or the image was erased before.
SELECT EXISTS (
    SELECT FROM fer.deletion
    WHERE facility_id = :facility_id
        AND (
            kind = 'day' AND (CAST(:capture_day AS date) IS NULL OR capture_day = :capture_day)
                AND CAST(:image_key AS text) IS NULL
            OR kind = 'image'
                AND key_sha256 = sha256(convert_to(CAST(:image_key AS text), 'UTF8'))));

-- name: delete_faces
DELETE FROM fer.face_result
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND (CAST(:image_key AS text) IS NULL OR image_key = :image_key);

-- name: delete_results
DELETE FROM fer.image_result
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND (CAST(:image_key AS text) IS NULL OR image_key = :image_key);

-- name: delete_images
DELETE FROM fer.image
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND (CAST(:image_key AS text) IS NULL OR image_key = :image_key);
