-- warning: images could not be read; the next run retries them
SELECT
    facility_id,
    capture_day,
    format('%s images: %s', sum(images), string_agg(format('%s %s', images, outcome), ', '
        ORDER BY outcome)) AS finding
FROM (
    SELECT i.facility_id, i.capture_day, r.outcome, count(*) AS images
    FROM fer.image AS i
    JOIN fer.image_result AS r
        ON r.facility_id = i.facility_id
        AND r.capture_day = i.capture_day
        AND r.capture_day = ANY(:capture_days) -- otherwise the plan has all partitions
        AND r.image_key = i.image_key
        AND r.member = i.member
        AND r.etag = i.etag
        AND r.model_version = :model_version
    WHERE i.facility_id = ANY(:facility_ids)
        AND i.capture_day = ANY(:capture_days)
        AND NOT fer.is_final(r.outcome, r.etag, i.etag, r.scored_at, i.listed_at, NULL)
    GROUP BY i.facility_id, i.capture_day, r.outcome
) AS pending
GROUP BY facility_id, capture_day
