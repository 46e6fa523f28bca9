-- name: find_days
-- The days that a run has processed, and when each was last listed.
SELECT b.facility_id, b.capture_day, b.listed_at
FROM fer.batch AS b
WHERE b.facility_id = ANY(:facility_ids)
    AND b.capture_day = ANY(:capture_days)
    AND NOT fer.is_day_deleted(b.facility_id, b.capture_day)
ORDER BY b.facility_id, b.capture_day;

-- name: record_late
-- Store how many of the given objects no listing has with their ETag.
WITH late AS (
    SELECT count(*) AS images
    FROM unnest(CAST(:image_keys AS text[]), CAST(:etags AS text[])) AS object (image_key, etag)
    WHERE NOT EXISTS (
            SELECT FROM fer.image AS i
            WHERE i.facility_id = :facility_id
                AND i.capture_day = :capture_day
                AND i.image_key = object.image_key COLLATE "C"
                AND i.etag = object.etag)
),
recorded AS (
    UPDATE fer.batch AS b
    SET images_late = late.images
    FROM late
    WHERE b.facility_id = :facility_id
        AND b.capture_day = :capture_day
        AND b.images_late <> late.images
)
SELECT images FROM late;
