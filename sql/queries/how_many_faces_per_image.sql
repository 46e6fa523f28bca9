-- On the newest complete day of each facility, how many images have how many faces?
-- parameter facility: facility, only this one
-- Role: fer_inspector
SELECT r.facility_id, r.capture_day, r.face_count, count(*) AS images
FROM fer.image_result AS r
JOIN fer.newest_complete_day AS newest USING (facility_id, capture_day)
JOIN fer.satisfaction_daily AS d USING (facility_id, capture_day, model_version)
WHERE r.capture_day >= (SELECT min(capture_day) FROM fer.newest_complete_day)
    AND r.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), r.facility_id)
    AND r.outcome IN ('scored', 'no_face')
GROUP BY r.facility_id, r.capture_day, r.face_count
ORDER BY r.facility_id, r.face_count;
