-- name: measure_work
-- How many images of a batch are unfinished, and their first and last key. A batch whose permission
-- has ended holds no work, whatever was listed before.
SELECT count(*) AS images, min(image_key) AS first_key, max(image_key) AS last_key
FROM fer.unfinished_image(:facility_id, :capture_day, :model_version, :rescore_before)
WHERE NOT EXISTS (
    SELECT FROM fer.batch
    WHERE facility_id = :facility_id AND capture_day = :capture_day AND status = 'no_permission');

-- name: cut_work
-- Cut the work of a batch into slices, in the order of its keys. :slice_starts are the positions,
-- counted from 1, at which the second and every further slice begins.
SELECT slice, min(image_key) AS first_key, max(image_key) AS last_key, count(*) AS images
FROM (
    SELECT
        image_key,
        width_bucket(
            row_number() OVER (ORDER BY image_key, member), CAST(:slice_starts AS bigint[])
        ) AS slice
    FROM fer.unfinished_image(:facility_id, :capture_day, :model_version, :rescore_before)
) AS numbered
GROUP BY slice
ORDER BY slice;
