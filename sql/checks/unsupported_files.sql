-- warning: more than 10 % of a day's images are files of one kind that is not supported
-- closed by: later images
SELECT
    facility_id,
    capture_day,
    suffix AS subject,
    CASE
        WHEN unsupported < images THEN format(
            '%s of %s *.%s files have another format than JPEG, PNG or WebP; convert them',
            unsupported, images, suffix)
        WHEN suffix IS NULL THEN format(
            '%s of %s images have no suffix and an unsupported format', unsupported, all_images)
        ELSE format(
            '%s of %s images are *.%s files; if they are no photographs, add exclude = ["*.%s"] to '
            'the facility', unsupported, all_images, suffix, suffix)
    END AS finding,
    'first ' || first_key AS example
FROM (
    SELECT
        facility_id, capture_day, suffix,
        count(*) AS images,
        count(*) FILTER (WHERE outcome = 'unsupported') AS unsupported,
        min(image_key) FILTER (WHERE outcome = 'unsupported') AS first_key,
        sum(count(*)) OVER (PARTITION BY facility_id, capture_day) AS all_images
    FROM (
        SELECT
            facility_id, capture_day, image_key, outcome,
            lower(substring(image_key FROM '[.]([A-Za-z0-9]{1,10})$')) AS suffix
        FROM fer.image_outcome(:facility_ids, :capture_days, :model_version)
        WHERE outcome IS NOT NULL
    ) AS file
    GROUP BY facility_id, capture_day, suffix
) AS counted
WHERE unsupported >= 3 AND unsupported > 0.1 * all_images
