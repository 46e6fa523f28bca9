-- error: a listed day has no summary
-- closed by: same day
SELECT b.facility_id, b.capture_day, format('%s images listed', b.images_listed) AS finding
FROM fer.batch AS b
WHERE b.facility_id = ANY(:facility_ids)
    AND b.capture_day = ANY(:capture_days)
    AND b.listed_at IS NOT NULL
    AND NOT fer.is_day_deleted(b.facility_id, b.capture_day)
    AND NOT EXISTS (
        SELECT FROM fer.satisfaction_summary AS s
        WHERE s.facility_id = b.facility_id
            AND s.capture_day = b.capture_day
            AND s.period = 'day')
