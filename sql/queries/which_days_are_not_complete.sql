-- Which days are incomplete, and what is missing?
-- parameter facility: facility, only this one
-- Role: fer_writer
SELECT
    d.facility_name,
    d.capture_day,
    d.images,
    d.images_pending,
    b.status AS last_listing,
    b.reason,
    b.listed_at AS last_listed_at
FROM fer.satisfaction_daily AS d
JOIN fer.batch AS b USING (facility_id, capture_day)
WHERE NOT d.is_complete
    AND d.capture_day < (now() AT TIME ZONE d.time_zone)::date -- a day that goes on is never complete
    AND d.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), d.facility_id)
ORDER BY d.capture_day DESC, d.facility_name;
