-- error: no object was found for a day although images of it are stored; check the prefix and the bucket
-- closed by: same day
SELECT
    b.facility_id,
    b.capture_day,
    format('no image begins with %s, but %s images of the day are stored%s',
        array_to_string(f.key_template, ' or '), stored.images,
        CASE WHEN b.objects_excluded > 0 THEN
            format('; include and exclude leave out %s objects', b.objects_excluded) END) AS finding
FROM fer.batch AS b
JOIN fer.facility AS f USING (facility_id)
JOIN (
    SELECT i.facility_id, i.capture_day, count(*) AS images
    FROM fer.image AS i
    WHERE i.facility_id = ANY(:facility_ids) AND i.capture_day = ANY(:capture_days)
    GROUP BY i.facility_id, i.capture_day
) AS stored USING (facility_id, capture_day)
WHERE b.status = 'listed'
    AND b.images_listed = 0
    -- As in is_complete: objects may be deleted from the bucket once they are scored. The prefix is
    -- right if the same run found images of another day.
    AND NOT EXISTS (
        SELECT FROM fer.batch AS o
        WHERE o.facility_id = b.facility_id
            AND o.listed_at = b.listed_at
            AND o.images_listed > 0)
