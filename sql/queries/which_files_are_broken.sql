-- Which files of the latest day could not be scored, and why?
SELECT r.facility_id, r.image_key, r.outcome, r.reason, r.size_bytes
FROM fer.image_result AS r
JOIN fer.satisfaction_daily AS d USING (facility_id, capture_day, model_version)
WHERE r.capture_day = (SELECT max(capture_day) FROM fer.satisfaction_daily)
    AND r.outcome NOT IN ('scored', 'no_face')
ORDER BY r.facility_id, r.outcome, r.image_key
LIMIT 1000;
