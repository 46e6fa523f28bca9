-- Which files of the newest complete day of each facility could not be scored, and why?
-- parameter facility: facility, only this one
-- Role: fer_inspector
SELECT r.facility_id, r.capture_day, r.image_key, r.outcome, r.reason, r.size_bytes
FROM fer.image_result AS r
JOIN fer.newest_complete_day AS newest USING (facility_id, capture_day)
JOIN fer.satisfaction_daily AS d USING (facility_id, capture_day, model_version)
WHERE r.capture_day >= (SELECT min(capture_day) FROM fer.newest_complete_day)
    AND r.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), r.facility_id)
    AND r.outcome NOT IN ('scored', 'no_face')
ORDER BY r.facility_id, r.outcome, r.image_key
LIMIT 1000;
