-- Take out of a listing what was erased: it is not read again, whatever its ETag.
DELETE FROM pg_temp.listed_image AS l
USING fer.deletion AS d
WHERE d.kind = 'image'
    AND d.facility_id = :facility_id
    AND d.key_sha256 = sha256(convert_to(l.image_key, 'UTF8'))
