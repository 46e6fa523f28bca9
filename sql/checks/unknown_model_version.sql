-- error: there are results of an unregistered model version
-- closed by: same day
SELECT
    r.facility_id,
    r.capture_day,
    left(r.model_version, 12) AS subject,
    format('%s results of %s', count(*), left(r.model_version, 12)) AS finding
FROM fer.image_result AS r
WHERE r.facility_id = ANY(:facility_ids)
    AND r.capture_day = ANY(:capture_days)
    AND NOT EXISTS (SELECT FROM fer.model_version AS m WHERE m.model_version = r.model_version)
GROUP BY r.facility_id, r.capture_day, r.model_version
