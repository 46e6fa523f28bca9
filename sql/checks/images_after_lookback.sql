-- warning: images of earlier days arrived after their last listing; run each of these days again
-- closed by: later day
-- The findings belong to the newest day of the run, which is the one that is looked at.
SELECT
    b.facility_id,
    (SELECT max(day) FROM unnest(CAST(:capture_days AS date[])) AS day) AS capture_day,
    to_char(b.capture_day, 'YYYY-MM-DD') AS subject,
    format('%s images of %s; run this day again with lookback_days 0', b.images_late, b.capture_day)
        AS finding
FROM fer.batch AS b
WHERE b.facility_id = ANY(:facility_ids)
    AND b.capture_day < ALL(:capture_days)
    AND b.images_late > 0
    AND NOT fer.is_day_deleted(b.facility_id, b.capture_day)
