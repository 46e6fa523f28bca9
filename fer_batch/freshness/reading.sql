-- name: load_facilities
SELECT facility_id, time_zone, closed_weekdays, publish_period, permission_valid_until
FROM fer.facility_public
WHERE is_in_registry
ORDER BY facility_id;

-- name: load_days
SELECT facility_id, capture_day, created_at, is_complete
FROM fer.satisfaction_daily
WHERE capture_day >= :first_day;

-- name: load_weeks
SELECT facility_id, last_day
FROM fer.satisfaction_period
WHERE period = 'week' AND last_day >= :first_day;

-- name: load_denials
-- The days on which runs found that the images of a facility may not be read, as ranges.
SELECT facility_id, first_day, last_day
FROM fer.finding_public
WHERE check_name = 'no_permission' AND last_day >= :first_day;

-- name: load_erased_days
SELECT facility_id, capture_day
FROM fer.erased_day
WHERE capture_day >= :first_day;
