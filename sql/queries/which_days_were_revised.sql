-- Which days were revised, and what changed?
SELECT
    facility_id,
    capture_day,
    revision,
    created_at,
    images - lag(images) OVER day AS images_added,
    images_pending - lag(images_pending) OVER day AS pending_added,
    round((happy_share - lag(happy_share) OVER day)::numeric, 4) AS happy_share_change,
    lag(verdict) OVER day AS verdict_before,
    verdict,
    model_version <> lag(model_version) OVER day AS has_other_model,
    target_share <> lag(target_share) OVER day AS has_other_target
FROM fer.satisfaction_summary
WHERE (facility_id, capture_day) IN (
    SELECT facility_id, capture_day FROM fer.satisfaction_daily WHERE revision > 1)
WINDOW day AS (PARTITION BY facility_id, capture_day ORDER BY revision)
ORDER BY capture_day DESC, facility_id, revision;
