-- A page of the images of a key range that have no final result yet, in the order of their keys.
-- :from_key is :after_key, the last key of the page before, or where the range begins.
SELECT image_key, member, etag, size_bytes
FROM fer.unfinished_image(
    :facility_id, :capture_day, :model_version, :rescore_before, :from_key, :to_key)
WHERE image_key > :after_key
ORDER BY image_key, member
LIMIT :page_size
