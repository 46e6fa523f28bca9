-- name: list_erased_keys
-- The HMACs of the keys of a facility's erased images. Those of another secret cannot be compared:
-- they are listed too, as not comparable, unless their whole day is never read again anyway.
SELECT
    d.key_hmac,
    coalesce(d.secret_check = CAST(:secret_check AS bytea), false) AS is_comparable
FROM fer.deletion AS d
WHERE d.kind = 'image'
    AND d.facility_id = :facility_id
    AND (
        d.secret_check = CAST(:secret_check AS bytea)
        OR NOT fer.is_day_deleted(d.facility_id, d.capture_day));

-- name: list_unreadable_facilities
-- The facilities with erased images that were recorded with another secret.
SELECT DISTINCT d.facility_id
FROM fer.deletion AS d
WHERE d.kind = 'image'
    AND d.secret_check IS DISTINCT FROM CAST(:secret_check AS bytea)
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
