-- Why were images of the last week of each facility not scored?
-- parameter facility: facility, only this one
-- Role: fer_reader
SELECT
    n.facility_name,
    n.outcome,
    sum(n.images) AS images,
    round(100.0 * sum(n.images) / sum(n.all_images), 2) AS percent_of_those_days
FROM fer.not_scored_daily AS n
JOIN fer.newest_complete_day AS newest USING (facility_id)
WHERE n.capture_day BETWEEN newest.capture_day - 6 AND newest.capture_day
    AND n.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), n.facility_id)
GROUP BY n.facility_id, n.facility_name, n.outcome
ORDER BY n.facility_name, images DESC;
