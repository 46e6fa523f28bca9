DELETE FROM fer.image_result
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND (CAST(:image_key AS text) IS NULL OR image_key = :image_key)
