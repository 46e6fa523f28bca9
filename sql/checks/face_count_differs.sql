-- error: the number of an image's faces differs from the face_count of its result
-- closed by: same day
SELECT r.facility_id, r.capture_day, format('%s images', count(*)) AS finding
FROM fer.image_result AS r
LEFT JOIN (
    SELECT facility_id, capture_day, image_key, member, model_version, count(*) AS faces
    FROM fer.face_result
    WHERE facility_id = ANY(:facility_ids) AND capture_day = ANY(:capture_days)
    GROUP BY facility_id, capture_day, image_key, member, model_version
) AS f USING (facility_id, capture_day, image_key, member, model_version)
WHERE r.facility_id = ANY(:facility_ids)
    AND r.capture_day = ANY(:capture_days)
    AND r.face_count <> coalesce(f.faces, 0)
GROUP BY r.facility_id, r.capture_day
