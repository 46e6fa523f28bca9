-- name: list_page
-- The next images of a batch after a key, in the order of their keys.
SELECT image_key, camera, captured_at_utc
FROM fer.image
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND image_key > :after_key
    AND member = ''
ORDER BY image_key
LIMIT :page_size;

-- name: update_page
UPDATE fer.image AS i
SET camera = computed.camera, captured_at_utc = computed.captured_at_utc
FROM unnest(
    CAST(:image_keys AS text []), CAST(:cameras AS text []), CAST(:captured_at_utc AS timestamptz [])
) AS computed (image_key, camera, captured_at_utc)
WHERE i.facility_id = :facility_id
    AND i.capture_day = :capture_day
    AND i.image_key = computed.image_key COLLATE "C"
    AND i.member = '';
