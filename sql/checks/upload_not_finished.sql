-- warning: the upload of a day was not finished when it was to be listed
SELECT facility_id, capture_day, reason AS finding
FROM fer.batch
WHERE facility_id = ANY(:facility_ids) AND capture_day = ANY(:capture_days) AND status = 'not_ready'
