-- error: there are results of images that were never listed, or faces without a result
-- closed by: same day
SELECT facility_id, capture_day, format('%s images', count(DISTINCT image_key)) AS finding
FROM (
    SELECT r.facility_id, r.capture_day, r.image_key
    FROM fer.image_result AS r
    WHERE r.facility_id = ANY(:facility_ids)
        AND r.capture_day = ANY(:capture_days)
        AND NOT EXISTS (
            SELECT FROM fer.image AS i
            WHERE i.facility_id = r.facility_id
                AND i.capture_day = r.capture_day
                AND i.capture_day = ANY(:capture_days) -- otherwise the plan has all partitions
                AND i.image_key = r.image_key
                AND i.member = r.member)
    UNION ALL
    SELECT f.facility_id, f.capture_day, f.image_key
    FROM fer.face_result AS f
    WHERE f.facility_id = ANY(:facility_ids)
        AND f.capture_day = ANY(:capture_days)
        AND NOT EXISTS (
            SELECT FROM fer.image_result AS r
            WHERE r.facility_id = f.facility_id
                AND r.capture_day = f.capture_day
                AND r.capture_day = ANY(:capture_days)
                AND r.image_key = f.image_key
                AND r.member = f.member
                AND r.model_version = f.model_version)
) AS orphan
GROUP BY facility_id, capture_day
