-- warning: an open day has fewer images than expected; check the facility's cameras
-- closed by: later images
SELECT
    d.facility_id,
    d.capture_day,
    format('%s images; an open day has at least %s', d.images, f.expected_images_min) AS finding
FROM fer.satisfaction_daily AS d
JOIN fer.facility AS f USING (facility_id)
WHERE d.facility_id = ANY(:facility_ids)
    AND d.capture_day = ANY(:capture_days)
    AND d.is_below_expected
