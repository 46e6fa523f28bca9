-- error: the images of a day could not be listed
-- closed by: same day
SELECT facility_id, capture_day, reason AS finding
FROM fer.batch
WHERE facility_id = ANY(:facility_ids) AND capture_day = ANY(:capture_days) AND status = 'failed'
