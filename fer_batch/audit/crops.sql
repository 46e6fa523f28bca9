-- name: find_image
-- Whether the image of a face is archived; no row if it was erased.
SELECT is_archived
FROM fer.image
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND image_key = :image_key
    AND member = :member;
