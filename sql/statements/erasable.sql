-- What there is of a facility, of one of its days, or of one of its images: rows by day.
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
ORDER BY i.capture_day
