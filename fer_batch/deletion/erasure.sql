-- name: find_erasable
-- The rows of facilities, of one of their days, or of one of their images, counted by day.
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
WHERE i.facility_id = ANY (:facility_ids)
    AND (CAST(:capture_day AS date) IS NULL OR i.capture_day = :capture_day)
    AND (CAST(:image_key AS text) IS NULL OR i.image_key = :image_key)
GROUP BY i.facility_id, i.capture_day
ORDER BY i.capture_day, i.facility_id;

-- name: is_erased
-- Whether the day or the image was erased before.
SELECT EXISTS (
    SELECT FROM fer.deletion
    WHERE facility_id = :facility_id
        AND (
            kind = 'day' AND (CAST(:capture_day AS date) IS NULL OR capture_day = :capture_day)
                AND CAST(:image_key AS text) IS NULL
            OR kind = 'image' AND key_hmac = CAST(:key_hmac AS bytea)));

-- name: is_empty
-- Whether a run has processed the day and no image of it was ever found. What retention or an
-- erasure has deleted is not empty.
SELECT EXISTS (
    SELECT FROM fer.batch AS b
    WHERE b.facility_id = :facility_id
        AND b.capture_day = :capture_day
        AND NOT fer.is_day_deleted(b.facility_id, b.capture_day)
        AND fer.erased_images(b.facility_id, b.capture_day) = 0
        AND NOT EXISTS (
            SELECT FROM fer.image AS i
            WHERE i.facility_id = :facility_id AND i.capture_day = :capture_day)
        AND NOT EXISTS (
            SELECT FROM fer.satisfaction_summary AS s
            WHERE s.facility_id = b.facility_id
                AND s.capture_day = b.capture_day
                AND s.period = 'day'
                AND s.images > 0));

-- name: delete_batch
DELETE FROM fer.batch
WHERE facility_id = :facility_id AND capture_day = :capture_day;

-- name: delete_day_summaries
DELETE FROM fer.satisfaction_summary
WHERE facility_id = :facility_id AND capture_day = :capture_day AND period = 'day';

-- name: delete_period_summaries
-- The summaries of weeks and four weeks that exist only because of the day: of which no other day
-- has a summary, or which are not over.
DELETE FROM fer.satisfaction_summary AS s
WHERE s.facility_id = :facility_id
    AND s.period <> 'day'
    AND :capture_day BETWEEN s.first_day AND s.capture_day
    AND (
        s.capture_day >= :today
        OR NOT EXISTS (
            SELECT FROM fer.satisfaction_summary AS d
            WHERE d.facility_id = s.facility_id
                AND d.period = 'day'
                AND d.capture_day BETWEEN s.first_day AND s.capture_day));

-- name: delete_audit_faces
-- The labels, and what model versions call the faces, are deleted with them.
DELETE FROM fer.audit_face
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND (CAST(:image_key AS text) IS NULL OR image_key = :image_key);

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
