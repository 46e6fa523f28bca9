-- On which open days of its last week did a facility have fewer images than expected?
-- parameter facility: facility, only this one
-- Role: fer_reader
SELECT d.facility_name, d.capture_day, d.images, f.expected_images_min
FROM fer.satisfaction_daily AS d
JOIN fer.facility_public AS f USING (facility_id)
JOIN fer.newest_complete_day AS newest USING (facility_id)
WHERE d.is_below_expected
    AND d.capture_day > newest.capture_day - 7
    AND d.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), d.facility_id)
    AND d.capture_day < (now() AT TIME ZONE d.time_zone)::date
ORDER BY d.capture_day DESC, d.facility_name;
