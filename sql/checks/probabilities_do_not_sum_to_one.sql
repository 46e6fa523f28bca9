-- error: the three probabilities of a face do not sum to 1
-- closed by: same day
SELECT facility_id, capture_day, format('%s images', count(DISTINCT image_key)) AS finding
FROM fer.face_result
WHERE facility_id = ANY(:facility_ids)
    AND capture_day = ANY(:capture_days)
    AND abs(p_happy + p_sad + p_neither - 1) > 0.001
GROUP BY facility_id, capture_day
