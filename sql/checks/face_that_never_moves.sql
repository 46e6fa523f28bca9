-- warning: a face in the same place in most frames of a camera, such as a poster
-- closed by: same camera
-- Places are compared on two grids of 32 pixels, the second one shifted by half a cell, because a
-- detector's box moves by a few pixels. Frames with the same content count once.
WITH frame AS (
    SELECT DISTINCT ON (i.facility_id, i.capture_day, i.etag)
        i.facility_id, i.capture_day, i.image_key, i.member, i.camera, r.model_version
    FROM fer.image AS i
    JOIN fer.image_result AS r USING (facility_id, capture_day, image_key, member)
    JOIN fer.facility AS f ON f.facility_id = i.facility_id AND f.image_kind = 'frames'
    JOIN fer.satisfaction_daily AS d
        ON d.facility_id = i.facility_id
        AND d.capture_day = i.capture_day
        AND d.model_version = r.model_version
    WHERE i.facility_id = ANY(:facility_ids)
        AND i.capture_day = ANY(:capture_days)
        AND r.facility_id = ANY(:facility_ids)
        AND r.capture_day = ANY(:capture_days)
        AND d.facility_id = ANY(:facility_ids)
        AND d.capture_day = ANY(:capture_days)
        AND r.etag = i.etag
        AND r.outcome IN ('scored', 'no_face')
    ORDER BY i.facility_id, i.capture_day, i.etag, i.image_key, i.member
),
camera AS (
    SELECT facility_id, capture_day, camera, count(*) AS frames
    FROM frame
    GROUP BY facility_id, capture_day, camera
    HAVING count(*) >= 20
),
place AS (
    SELECT
        frame.facility_id, frame.capture_day, frame.camera,
        count(DISTINCT frame.image_key) AS frames,
        min(f.box_x) AS box_x,
        min(f.box_y) AS box_y
    FROM frame
    JOIN fer.face_result AS f USING (facility_id, capture_day, image_key, member, model_version)
    CROSS JOIN (VALUES (0), (16)) AS grid (shift)
    WHERE f.facility_id = ANY(:facility_ids) AND f.capture_day = ANY(:capture_days)
    GROUP BY
        frame.facility_id, frame.capture_day, frame.camera, grid.shift,
        (f.box_x + f.box_width / 2 + grid.shift) / 32,
        (f.box_y + f.box_height / 2 + grid.shift) / 32,
        (f.box_width + grid.shift) / 32
)
SELECT
    place.facility_id,
    place.capture_day,
    place.camera AS subject,
    format('%s: near (%s, %s) in most of its %s frames',
        coalesce('camera ' || place.camera, 'unknown camera'),
        (array_agg(place.box_x ORDER BY place.frames DESC))[1],
        (array_agg(place.box_y ORDER BY place.frames DESC))[1],
        max(camera.frames)) AS finding
FROM place
JOIN camera
    ON camera.facility_id = place.facility_id
    AND camera.capture_day = place.capture_day
    AND camera.camera IS NOT DISTINCT FROM place.camera
WHERE place.frames > 0.5 * camera.frames
GROUP BY place.facility_id, place.capture_day, place.camera
