-- error: an open day has no image although the facility had images before; check its prefix and its cameras
SELECT
    b.facility_id,
    b.capture_day,
    format('no image begins with %s; the newest image is of %s%s',
        array_to_string(f.key_template, ' or '), earlier.capture_day,
        CASE WHEN b.objects_excluded > 0 THEN
            format('; include and exclude leave out %s objects', b.objects_excluded) END) AS finding
FROM fer.batch AS b
JOIN fer.facility AS f USING (facility_id)
CROSS JOIN LATERAL (
    SELECT max(s.capture_day) AS capture_day
    FROM fer.satisfaction_summary AS s
    WHERE s.facility_id = b.facility_id
        AND s.period = 'day'
        AND s.capture_day < b.capture_day
        AND s.images > 0
) AS earlier
WHERE b.facility_id = ANY(:facility_ids)
    AND b.capture_day = ANY(:capture_days)
    AND b.status = 'listed'
    AND b.images_listed = 0
    AND earlier.capture_day IS NOT NULL
    AND f.empty_days = 'error'
    AND to_char(b.capture_day, 'dy') <> ALL(f.closed_weekdays)
    -- The day was over when it was listed.
    AND b.listed_at >= CAST(b.capture_day + 1 AS timestamp) AT TIME ZONE f.time_zone
    AND NOT fer.is_day_deleted(b.facility_id, b.capture_day)
    AND fer.erased_images(b.facility_id, b.capture_day) = 0
    -- Objects may be deleted from the bucket once they are scored.
    AND NOT EXISTS (
        SELECT FROM fer.image AS i
        WHERE i.facility_id = b.facility_id
            AND i.capture_day = b.capture_day
            AND i.capture_day = ANY(:capture_days))
