-- name: list_erased_keys
-- The HMACs of the keys of erased images of a facility, and of those of other facilities on some
-- days. Of a bucket that is not named, or of an unknown facility, it is not known where it is.
SELECT d.key_hmac
FROM fer.deletion AS d
WHERE d.kind = 'image'
    AND d.secret_check = CAST(:secret_check AS bytea)
    AND d.facility_id = :facility_id
UNION ALL
SELECT d.key_hmac
FROM fer.deletion AS d
INNER JOIN fer.facility AS other ON other.facility_id = d.facility_id
LEFT JOIN fer.facility AS f ON f.facility_id = :facility_id
WHERE d.kind = 'image'
    AND d.secret_check = CAST(:secret_check AS bytea)
    AND d.facility_id <> :facility_id
    AND d.capture_day BETWEEN :first_day AND :last_day
    AND coalesce(lower(other.bucket) = lower(f.bucket), true);

-- name: list_unreadable_facilities
-- The facilities with erased images that were recorded with another secret.
SELECT DISTINCT d.facility_id
FROM fer.deletion AS d
WHERE d.kind = 'image'
    AND (
        CAST(:secret_check AS bytea) IS NULL
        -- In this form, an index is used.
        OR d.secret_check < CAST(:secret_check AS bytea)
        OR d.secret_check > CAST(:secret_check AS bytea))
    AND NOT fer.is_day_deleted(d.facility_id, d.capture_day)
ORDER BY d.facility_id;

-- name: count_erased_keys
SELECT count(*)
FROM fer.deletion
WHERE kind = 'image' AND secret_check = CAST(:secret_check AS bytea);

-- name: find_erased_keys
-- Those of the HMACs that are recorded, in whatever facility.
SELECT DISTINCT key_hmac
FROM fer.deletion
WHERE kind = 'image' AND key_hmac = ANY (:key_hmacs);
