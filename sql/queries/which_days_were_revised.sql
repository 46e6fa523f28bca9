-- Which days were revised, and what changed?
-- parameter facility: facility, only this one
-- Role: fer_writer
SELECT
    facility_id,
    capture_day,
    revision,
    created_at,
    images - lag(images) OVER day AS images_added,
    images_pending - lag(images_pending) OVER day AS pending_added,
    round((happy_rate - lag(happy_rate) OVER day)::numeric, 4) AS happy_rate_change,
    method,
    lag(verdict) OVER day AS verdict_before,
    verdict,
    model_version <> lag(model_version) OVER day AS has_other_model,
    coalesce(target_rate, -1) <> coalesce(lag(target_rate) OVER day, -1) AS has_other_target
FROM fer.satisfaction_summary
WHERE period = 'day'
    AND capture_day <= (now() AT TIME ZONE time_zone)::date
    AND facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), facility_id)
    AND (facility_id, capture_day) IN (
        SELECT facility_id, capture_day FROM fer.satisfaction_daily WHERE revision > 1)
WINDOW day AS (PARTITION BY facility_id, capture_day ORDER BY revision)
ORDER BY capture_day DESC, facility_id, revision;
