-- name: inspect
SELECT
    has_column_privilege('fer.retention', 'before_day', 'INSERT') AS may_delete,
    (clock_timestamp() AT TIME ZONE 'UTC')::date AS today;

-- name: find_last_sign
-- The newest capture day of which images were listed, or the day of the last maintenance. A clock
-- that is wrong makes neither newer: keys of images have the days of the cameras, and maintenance
-- is refused.
SELECT greatest(
    (SELECT max(capture_day) FROM fer.batch WHERE images_listed > 0),
    (SELECT max((set_at AT TIME ZONE 'UTC')::date) FROM fer.retention));
