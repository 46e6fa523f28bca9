-- name: list_keys
-- The keys of a day.
SELECT DISTINCT image_key
FROM fer.image
WHERE facility_id = :facility_id AND capture_day = :capture_day;

-- name: list_all_keys
-- The keys of all days of facilities; that of a container once for each of its images.
SELECT facility_id, capture_day, image_key
FROM fer.image
WHERE facility_id = ANY (:facility_ids);

-- name: is_recorded
SELECT EXISTS (
    SELECT FROM fer.deletion
    WHERE kind = :kind
        AND facility_id = :facility_id
        AND capture_day = :capture_day
        AND key_hmac IS NOT DISTINCT FROM CAST(:key_hmac AS bytea));
