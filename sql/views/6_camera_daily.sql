-- The images of each camera, for finding one that stopped. There is no rate per camera: it would be
-- a further sum of faces, from which with the others a suppressed one could be computed.
CREATE OR REPLACE VIEW fer.camera_daily AS
SELECT
    newest.facility_id,
    facility.name AS facility_name,
    newest.capture_day,
    counted.camera,
    counted.images::bigint AS images
FROM (
    SELECT DISTINCT ON (facility_id, capture_day) facility_id, capture_day, cameras
    FROM fer.satisfaction_summary
    WHERE period = 'day'
    ORDER BY facility_id, capture_day, revision DESC
) AS newest
JOIN fer.facility USING (facility_id)
CROSS JOIN LATERAL jsonb_each_text(newest.cameras) AS counted (camera, images);

COMMENT ON VIEW fer.camera_daily IS 'One row per facility, capture day and camera that delivered images, of facilities whose keys name the camera.';
COMMENT ON COLUMN fer.camera_daily.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.camera_daily.facility_name IS 'Display name of the facility';
COMMENT ON COLUMN fer.camera_daily.capture_day IS 'Calendar date in the keys of the images';
COMMENT ON COLUMN fer.camera_daily.camera IS 'Camera, as the keys name it';
COMMENT ON COLUMN fer.camera_daily.images IS 'All known images of the camera on this day: scored, not scored and pending';
