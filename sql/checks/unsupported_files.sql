-- warning: more than 10 % of a day's images are files of one kind that is not supported
SELECT
    facility_id,
    capture_day,
    CASE
        WHEN unsupported < images THEN format(
            '%s of %s *.%s files have another format than JPEG, PNG or WebP, first %s; convert them',
            unsupported, images, suffix, first_key)
        WHEN suffix IS NULL THEN format(
            '%s of %s images have no suffix and an unsupported format, first %s', unsupported,
            all_images, first_key)
        ELSE format(
            '%s of %s images are *.%s files; if they are no photographs, add exclude = ["*.%s"] to '
            'the facility', unsupported, all_images, suffix, suffix)
    END AS finding
FROM (
    SELECT
        facility_id, capture_day, suffix,
        count(*) AS images,
        count(*) FILTER (WHERE outcome = 'unsupported') AS unsupported,
        min(image_key) FILTER (WHERE outcome = 'unsupported') AS first_key,
        sum(count(*)) OVER (PARTITION BY facility_id, capture_day) AS all_images
    FROM (
        SELECT
            i.facility_id, i.capture_day, i.image_key, r.outcome,
            lower(substring(i.image_key FROM '[.]([A-Za-z0-9]{1,10})$')) AS suffix
        FROM fer.image AS i
        JOIN fer.image_result AS r
            ON r.facility_id = i.facility_id
            AND r.capture_day = i.capture_day
            AND r.capture_day = ANY(:capture_days) -- otherwise the plan has all partitions
            AND r.image_key = i.image_key
            AND r.member = i.member
            AND r.etag = i.etag
            AND r.model_version = :model_version
        WHERE i.facility_id = ANY(:facility_ids) AND i.capture_day = ANY(:capture_days)
    ) AS file
    GROUP BY facility_id, capture_day, suffix
) AS counted
WHERE unsupported >= 3 AND unsupported > 0.1 * all_images
