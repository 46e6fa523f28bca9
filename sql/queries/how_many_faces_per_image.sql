-- On the latest day, how many images of each facility have how many faces?
SELECT r.facility_id, r.face_count, count(*) AS images
FROM fer.image_result AS r
JOIN fer.satisfaction_daily AS d USING (facility_id, capture_day, model_version)
WHERE r.capture_day = (SELECT max(capture_day) FROM fer.satisfaction_daily)
    AND r.outcome IN ('scored', 'no_face')
GROUP BY r.facility_id, r.face_count
ORDER BY r.facility_id, r.face_count;
