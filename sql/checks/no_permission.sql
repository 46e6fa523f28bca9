-- warning: a facility was skipped because its images may not be read
-- closed by: later day
SELECT facility_id, capture_day, reason AS finding
FROM fer.batch
WHERE facility_id = ANY(:facility_ids)
    AND capture_day = ANY(:capture_days)
    AND status = 'no_permission'
