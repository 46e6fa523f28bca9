-- Which days have been processed by a run but have no summary, and why?
SELECT f.name AS facility_name, b.capture_day, b.status, b.reason, b.attempted_at
FROM fer.batch AS b
JOIN fer.facility AS f USING (facility_id)
WHERE b.capture_day < (now() AT TIME ZONE f.time_zone)::date
    AND NOT EXISTS (
        SELECT FROM fer.satisfaction_summary AS s
        WHERE s.facility_id = b.facility_id
            AND s.capture_day = b.capture_day
            AND s.period = 'day')
ORDER BY b.capture_day DESC, facility_name;
