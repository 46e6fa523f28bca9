SELECT key_sha256
FROM fer.deletion
WHERE kind = 'image' AND facility_id = :facility_id
