-- On which open days of the last week did fewer images arrive than expected?
SELECT d.facility_name, d.capture_day, d.images, f.expected_images_min
FROM fer.satisfaction_daily AS d
JOIN fer.facility AS f USING (facility_id)
WHERE d.is_below_expected
    AND d.capture_day > (SELECT max(capture_day) FROM fer.satisfaction_daily) - 7
ORDER BY d.capture_day DESC, d.facility_name;
