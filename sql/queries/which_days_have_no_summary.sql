-- Which days have been processed by a run but have no summary, and why?
-- parameter facility: facility, only this one
-- Role: fer_writer
SELECT f.name AS facility_name, b.capture_day, b.status, b.reason, b.attempted_at
FROM fer.batch AS b
JOIN fer.facility AS f USING (facility_id)
WHERE b.capture_day < (now() AT TIME ZONE f.time_zone)::date
    AND b.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), b.facility_id)
    AND NOT EXISTS (
        SELECT FROM fer.satisfaction_daily AS d
        WHERE d.facility_id = b.facility_id AND d.capture_day = b.capture_day)
ORDER BY b.capture_day DESC, facility_name;
