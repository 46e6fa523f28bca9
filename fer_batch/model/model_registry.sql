-- name: count_scored
-- Images with faces by model version, from the newest summaries: counting image_result would read
-- the partitions of all days.
SELECT model_version, sum(images_scored)::bigint AS images_scored
FROM (
    SELECT DISTINCT ON (facility_id, capture_day, model_version) model_version, images_scored
    FROM fer.satisfaction_summary
    ORDER BY facility_id, capture_day, model_version, revision DESC
) AS newest
GROUP BY model_version;
