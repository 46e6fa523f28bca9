-- error: listed images have no outcome
-- closed by: same day
SELECT
    i.facility_id,
    i.capture_day,
    format('%s of %s images have no outcome', count(*) FILTER (WHERE i.outcome IS NULL), count(*))
        AS finding
FROM fer.image_outcome(:facility_ids, :capture_days, :model_version) AS i
LEFT JOIN fer.batch AS b
    ON b.facility_id = i.facility_id
    AND b.capture_day = i.capture_day
WHERE b.status IS DISTINCT FROM 'no_permission' -- reported by the check no_permission
GROUP BY i.facility_id, i.capture_day
HAVING count(*) FILTER (WHERE i.outcome IS NULL) > 0
