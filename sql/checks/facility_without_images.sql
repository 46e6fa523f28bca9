-- warning: no image of a facility was ever listed; `fer-batch check` says what lies near its prefix
-- closed by: later images
SELECT
    b.facility_id,
    max(b.capture_day) AS capture_day,
    format('no image begins with %s%s',
        array_to_string(f.key_template, ' or '),
        CASE WHEN sum(b.objects_excluded) > 0 THEN
            format('; include and exclude leave out %s objects', sum(b.objects_excluded)) END)
        AS finding
FROM fer.batch AS b
JOIN fer.facility AS f USING (facility_id)
WHERE b.facility_id = ANY(:facility_ids)
    AND b.capture_day = ANY(:capture_days)
    AND b.status = 'listed'
    AND NOT EXISTS (
        SELECT FROM fer.batch AS other
        WHERE other.facility_id = b.facility_id AND other.images_listed > 0)
    -- A later listing may have found nothing.
    AND NOT EXISTS (
        SELECT FROM fer.satisfaction_summary AS s
        WHERE s.facility_id = b.facility_id AND s.images > 0)
GROUP BY b.facility_id, f.key_template
