-- name: find_key
-- The key of the image of a day that has this SHA-256; without one, a key of the day. Null: none.
SELECT min(image_key)
FROM fer.image
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND (
        CAST(:key_sha256 AS bytea) IS NULL
        OR sha256(convert_to(image_key, 'UTF8')) = :key_sha256);

-- name: is_recorded
SELECT EXISTS (
    SELECT FROM fer.deletion
    WHERE kind = :kind
        AND facility_id = :facility_id
        AND capture_day = :capture_day
        AND key_sha256 IS NOT DISTINCT FROM CAST(:key_sha256 AS bytea));
