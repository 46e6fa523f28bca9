-- warning: more than 10 % of a day's images are named like thumbnails; faces in them count twice
-- closed by: later images
-- Only names tell a thumbnail from a photograph. If all images are named so, they are no copies.
SELECT
    facility_id,
    capture_day,
    pattern AS subject,
    format('%s of %s images are named so; if they are copies, add exclude = ["%s"] to the facility',
        images, all_images, pattern) AS finding,
    'first ' || first_key AS example
FROM (
    SELECT
        facility_id, capture_day, pattern,
        count(*) AS images,
        min(image_key) AS first_key,
        sum(count(*)) OVER day AS all_images,
        sum(count(*)) FILTER (WHERE pattern IS NOT NULL) OVER day AS thumbnails
    FROM (
        SELECT
            i.facility_id, i.capture_day, i.image_key,
            coalesce(
                '*/' || (regexp_match(
                    i.image_key, '(^|/)(@eaDir|[.]?thumb(nail)?s?)/', 'i'))[2] || '/*',
                '*' || (regexp_match(
                    i.image_key, '([-._](thumb|thumbnail|preview|small))[.][a-z]+$', 'i'))[1]
                    || '.*',
                (regexp_match(
                    i.image_key, '(^|/)((thumb|thumbnail|tn)[-._])[^/]*$', 'i'))[2] || '*'
            ) AS pattern
        FROM fer.image AS i
        WHERE i.facility_id = ANY(:facility_ids) AND i.capture_day = ANY(:capture_days)
    ) AS named
    GROUP BY facility_id, capture_day, pattern
    WINDOW day AS (PARTITION BY facility_id, capture_day)
) AS counted
WHERE pattern IS NOT NULL
    AND thumbnails < all_images
    AND images >= 3
    AND images > 0.1 * all_images
