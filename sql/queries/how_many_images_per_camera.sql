-- How many images did each camera deliver on the newest complete day, and how many does it usually?
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
recent AS (
    SELECT
        c.facility_id,
        c.facility_name,
        c.camera,
        newest.capture_day,
        coalesce(sum(c.images) FILTER (WHERE c.capture_day = newest.capture_day), 0) AS images,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY c.images)
            FILTER (WHERE c.capture_day < newest.capture_day) AS usual_images
    FROM fer.camera_daily AS c
    JOIN newest USING (facility_id)
    WHERE c.capture_day BETWEEN newest.capture_day - 14 AND newest.capture_day
    GROUP BY c.facility_id, c.facility_name, c.camera, newest.capture_day
)
SELECT
    facility_name,
    camera,
    capture_day,
    images,
    usual_images,
    round(100.0 * images / usual_images) AS percent_of_usual
FROM recent
ORDER BY facility_name, camera;
