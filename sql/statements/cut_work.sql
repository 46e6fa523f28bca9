-- Cut the work of a batch into slices, in the order of its keys. :first_places are the places,
-- counted from 1, at which the second and every further slice begins.
SELECT slice, min(image_key) AS first_key, max(image_key) AS last_key, count(*) AS images
FROM (
    SELECT
        image_key,
        width_bucket(row_number() OVER (ORDER BY image_key, member), CAST(:first_places AS bigint[]))
            AS slice
    FROM fer.unfinished_image(:facility_id, :capture_day, :model_version, :rescore_before)
) AS numbered
GROUP BY slice
ORDER BY slice
