-- The listed images of one capture day: :counts of them at each of :facility_ids.
INSERT INTO fer.image (
    facility_id, capture_day, image_key, member, etag, size_bytes, first_seen_at, listed_at
)
SELECT
    facility_id, :day, image_key, '', md5(image_key), 1000 + n % 1000, :listed_at, :listed_at
FROM (
    SELECT
        f.facility_id, n,
        concat(f.facility_id, '/', CAST(:day AS date), '/', lpad(CAST(n AS text), 6, '0'), '.jpg')
            AS image_key
    FROM unnest(CAST(:facility_ids AS text[]), CAST(:counts AS integer[])) AS f (facility_id, images)
    CROSS JOIN LATERAL generate_series(1, f.images) AS n
) AS drawn
