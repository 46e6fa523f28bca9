-- Why were images of the last week of each facility not scored?
SELECT
    n.facility_name,
    n.outcome,
    sum(n.images) AS images,
    round(100.0 * sum(n.images) / sum(n.all_images), 2) AS percent_of_those_days
FROM fer.not_scored_daily AS n
JOIN fer.newest_complete_day AS newest USING (facility_id)
WHERE n.capture_day BETWEEN newest.capture_day - 6 AND newest.capture_day
GROUP BY n.facility_id, n.facility_name, n.outcome
ORDER BY n.facility_name, images DESC;
