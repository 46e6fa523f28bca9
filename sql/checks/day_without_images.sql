-- error: an open day has no image although the facility has images on other days; check its prefix and its cameras
-- closed by: later images
SELECT
    b.facility_id,
    b.capture_day,
    format('no image begins with %s; the newest image is of %s%s',
        array_to_string(f.key_template, ' or '), other.newest_day,
        CASE WHEN b.objects_excluded > 0 THEN
            format('; include and exclude leave out %s objects', b.objects_excluded) END) AS finding
FROM fer.batch AS b
JOIN fer.facility AS f USING (facility_id)
CROSS JOIN LATERAL (
    SELECT max(known.capture_day) AS newest_day
    FROM (
        SELECT s.capture_day
        FROM fer.satisfaction_summary AS s
        WHERE s.facility_id = b.facility_id AND s.period = 'day' AND s.images > 0
        UNION ALL
        SELECT o.capture_day
        FROM fer.batch AS o
        WHERE o.facility_id = b.facility_id AND o.images_listed > 0
    ) AS known
    WHERE known.capture_day < b.capture_day
        -- If the same run found images of a later day, the prefix is right, and days before the
        -- first image are those before the cameras were installed.
        OR known.capture_day > b.capture_day
        AND NOT EXISTS (
            SELECT FROM fer.batch AS o
            WHERE o.facility_id = b.facility_id
                AND o.capture_day > b.capture_day
                AND o.listed_at = b.listed_at
                AND o.images_listed > 0)
) AS other
WHERE b.facility_id = ANY(:facility_ids)
    AND b.capture_day = ANY(:capture_days)
    AND b.status = 'listed'
    AND b.images_listed = 0
    AND other.newest_day IS NOT NULL
    AND f.empty_days = 'error'
    AND to_char(b.capture_day, 'dy') <> ALL(f.closed_weekdays)
    -- The day was over when it was listed.
    AND b.listed_at >= CAST(b.capture_day + 1 AS timestamp) AT TIME ZONE f.time_zone
    AND NOT fer.is_day_deleted(b.facility_id, b.capture_day)
    AND fer.erased_images(b.facility_id, b.capture_day) = 0
    -- Left to images_not_listed.
    AND NOT EXISTS (
        SELECT FROM fer.image AS i
        WHERE i.facility_id = b.facility_id
            AND i.capture_day = b.capture_day
            AND i.capture_day = ANY(:capture_days))
