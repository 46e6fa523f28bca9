INSERT INTO fer.deletion (kind, facility_id, capture_day, key_sha256, images, faces)
VALUES (
    :kind, :facility_id, :capture_day,
    sha256(convert_to(CAST(:image_key AS text), 'UTF8')), :images, :faces)
