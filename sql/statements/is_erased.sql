-- Whether the day or the image that is asked for was erased before.
SELECT EXISTS (
    SELECT FROM fer.deletion
    WHERE facility_id = :facility_id
        AND (
            kind = 'day' AND (CAST(:capture_day AS date) IS NULL OR capture_day = :capture_day)
                AND CAST(:image_key AS text) IS NULL
            OR kind = 'image' AND key_sha256 = sha256(convert_to(CAST(:image_key AS text), 'UTF8'))))
