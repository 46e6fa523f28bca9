-- How much work a batch holds, and between which keys. A batch whose permission has ended holds
-- none, whatever was listed before.
SELECT count(*) AS images, min(image_key) AS first_key, max(image_key) AS last_key
FROM fer.unfinished_image(:facility_id, :capture_day, :model_version, :rescore_before)
WHERE NOT EXISTS (
    SELECT FROM fer.batch
    WHERE facility_id = :facility_id AND capture_day = :capture_day AND status = 'no_permission')
