-- A page of the images of a key range that have no final result yet, in the order of their keys.
SELECT image_key, member, etag, size_bytes
FROM fer.unfinished_image(:facility_id, :capture_day, :model_version, :rescore_before)
WHERE image_key BETWEEN :first_key AND :last_key AND image_key > :after_key
ORDER BY image_key, member
LIMIT :page_size
