-- error: listed images have no outcome
SELECT
    i.facility_id,
    i.capture_day,
    format('%s of %s images have no outcome', count(*) FILTER (WHERE r.image_key IS NULL), count(*))
        AS finding
FROM fer.image AS i
LEFT JOIN fer.image_result AS r
    ON r.facility_id = i.facility_id
    AND r.capture_day = i.capture_day
    AND r.capture_day = ANY(:capture_days) -- otherwise the plan has all partitions
    AND r.image_key = i.image_key
    AND r.member = i.member
    AND r.etag = i.etag
    AND r.model_version = :model_version
LEFT JOIN fer.batch AS b
    ON b.facility_id = i.facility_id
    AND b.capture_day = i.capture_day
WHERE i.facility_id = ANY(:facility_ids)
    AND i.capture_day = ANY(:capture_days)
    AND b.status IS DISTINCT FROM 'no_permission' -- reported by the check no_permission
GROUP BY i.facility_id, i.capture_day
HAVING count(*) FILTER (WHERE r.image_key IS NULL) > 0
