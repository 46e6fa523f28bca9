-- warning: images could not be read; the next run retries them
-- closed by: same day
SELECT
    facility_id,
    capture_day,
    format('%s images: %s', sum(images), string_agg(format('%s %s', images, outcome), ', '
        ORDER BY outcome)) AS finding
FROM (
    SELECT facility_id, capture_day, outcome, count(*) AS images
    FROM fer.image_outcome(:facility_ids, :capture_days, :model_version)
    WHERE outcome IS NOT NULL
        AND NOT fer.is_final(outcome, result_etag, etag, scored_at, listed_at, NULL)
    GROUP BY facility_id, capture_day, outcome
) AS pending
GROUP BY facility_id, capture_day
