-- Successful listings of a day.
INSERT INTO fer.batch (
    facility_id, capture_day, status, images_listed, bytes_listed, listed_at, attempted_at, run_id
)
SELECT facility_id, capture_day, 'listed', count(*), sum(size_bytes), max(listed_at),
    max(listed_at), :run_id
FROM fer.image
WHERE capture_day = :day
GROUP BY facility_id, capture_day
