-- Images with faces and capture days of each model version, from its newest summaries: a count of
-- image_result would read every day that there is.
SELECT model_version, sum(images_scored)::bigint AS images_scored, count(*) AS summaries
FROM (
    SELECT DISTINCT ON (facility_id, capture_day, model_version) model_version, images_scored
    FROM fer.satisfaction_summary
    ORDER BY facility_id, capture_day, model_version, revision DESC
) AS newest
GROUP BY model_version
