-- warning: a camera delivered the same picture at least 10 times; its faces were counted once
-- closed by: same camera
SELECT
    facility_id,
    capture_day,
    camera AS subject,
    format('%s: one picture %s times',
        coalesce('camera ' || camera, 'unknown camera'), images) AS finding,
    'first ' || first_key AS example
FROM (
    SELECT
        i.facility_id, i.capture_day, i.camera,
        count(*) AS images,
        min(i.image_key) AS first_key
    FROM fer.image AS i
    WHERE i.facility_id = ANY(:facility_ids)
        AND i.capture_day = ANY(:capture_days)
        AND i.size_bytes > 0
    GROUP BY i.facility_id, i.capture_day, i.camera, i.etag
) AS picture
WHERE images >= 10
