-- Why were images not scored in the last week, by facility?
SELECT
    facility_name,
    outcome,
    sum(images) AS images,
    round(100.0 * sum(images) / sum(all_images), 2) AS percent_of_those_days
FROM fer.not_scored_daily
WHERE capture_day > (SELECT max(capture_day) FROM fer.satisfaction_daily) - 7
GROUP BY facility_id, facility_name, outcome
ORDER BY facility_name, images DESC;
