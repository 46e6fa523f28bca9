SELECT facility_id, capture_day
FROM fer.deletion
WHERE kind = 'day' AND facility_id = ANY (:facility_ids) AND capture_day = ANY (:capture_days)
