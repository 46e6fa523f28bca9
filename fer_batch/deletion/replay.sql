-- name: list_keys
-- The keys of a day.
SELECT DISTINCT image_key
FROM fer.image
WHERE facility_id = :facility_id AND capture_day = :capture_day;

-- name: is_recorded
SELECT EXISTS (
    SELECT FROM fer.deletion
    WHERE kind = :kind
        AND facility_id = :facility_id
        AND capture_day = :capture_day
        AND key_hmac IS NOT DISTINCT FROM CAST(:key_hmac AS bytea));
