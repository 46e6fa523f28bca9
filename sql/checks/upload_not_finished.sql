-- warning: a day was not listed because its upload was not finished
-- closed by: same day
SELECT facility_id, capture_day, reason AS finding
FROM fer.batch
WHERE facility_id = ANY(:facility_ids) AND capture_day = ANY(:capture_days) AND status = 'not_ready'
