-- name: list_former
-- Those of the candidates that have left the registry, with the place of their images.
SELECT facility_id, lower(bucket) AS bucket, key_template
FROM fer.facility
WHERE NOT is_in_registry
    AND (CAST(:candidates AS text []) IS NULL OR facility_id = ANY (:candidates));

-- name: list_present
SELECT facility_id, lower(bucket) AS bucket, key_template
FROM fer.facility
WHERE is_in_registry
    AND (CAST(:facility_ids AS text []) IS NULL OR facility_id = ANY (:facility_ids));
