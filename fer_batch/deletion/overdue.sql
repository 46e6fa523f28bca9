-- name: load_horizon
-- The first day whose rows per image retention has kept, and when it got there.
SELECT before_day, set_at
FROM fer.retention
WHERE kind = 'rows'
ORDER BY before_day DESC
LIMIT 1;

-- name: count_days
-- The days before :before_day that still have a partition of images, and the first of them.
SELECT count(*) AS days, min(day) AS first_day
FROM (
    SELECT to_date(
        substring(relname FROM '^image_([0-9]{4}_[0-9]{2}_[0-9]{2})$'), 'YYYY_MM_DD') AS day
    FROM pg_class
    WHERE relnamespace = 'fer'::regnamespace AND relkind = 'r'
) AS part
WHERE day < :before_day;
