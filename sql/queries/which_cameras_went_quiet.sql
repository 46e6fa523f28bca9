-- Which cameras stopped, or deliver far fewer images than usual?
-- parameter facility: facility, only this one
-- Role: fer_reader
WITH newest AS (
    -- Days whose keys name cameras; the newest one of each facility.
    SELECT facility_id, max(camera_daily.capture_day) AS capture_day
    FROM fer.camera_daily
    JOIN fer.newest_complete_day AS complete USING (facility_id)
    WHERE camera_daily.capture_day <= complete.capture_day
        AND facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), facility_id)
    GROUP BY facility_id
),
usual AS (
    SELECT
        c.facility_id,
        c.facility_name,
        c.camera,
        newest.capture_day,
        max(c.capture_day) AS last_day_with_images,
        count(*) AS days_with_images,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY c.images) AS usual_images
    FROM fer.camera_daily AS c
    JOIN newest USING (facility_id)
    WHERE c.capture_day BETWEEN newest.capture_day - 14 AND newest.capture_day - 1
    GROUP BY c.facility_id, c.facility_name, c.camera, newest.capture_day
    HAVING count(*) >= 3
)
SELECT
    usual.facility_name,
    usual.camera,
    usual.capture_day,
    coalesce(today.images, 0) AS images,
    usual.usual_images,
    CASE WHEN today.images IS NULL THEN 'stopped' ELSE 'far fewer images' END AS problem,
    coalesce(today.capture_day, usual.last_day_with_images) AS last_day_with_images
FROM usual
LEFT JOIN fer.camera_daily AS today
    ON today.facility_id = usual.facility_id
    AND today.capture_day = usual.capture_day
    AND today.camera = usual.camera
WHERE coalesce(today.images, 0) < usual.usual_images / 4.0
ORDER BY usual.facility_name, images, usual.camera;
