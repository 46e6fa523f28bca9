-- name: record_finished
INSERT INTO fer.finished_night (facility_id, capture_day, run_id)
SELECT f.facility_id, :capture_day, :run_id
FROM fer.facility AS f
WHERE f.facility_id = ANY(CAST(:facility_ids AS text[]))
    AND :now >= CAST(CAST(:capture_day AS date) + 1 AS timestamp) AT TIME ZONE f.time_zone
ORDER BY f.facility_id
ON CONFLICT DO NOTHING;

-- name: load_nights
-- The finished nights of some facilities since :first_day, and each one's first night ever.
SELECT
    facility_id,
    min(capture_day) AS first_night,
    coalesce(
        array_agg(capture_day ORDER BY capture_day)
            FILTER (WHERE capture_day BETWEEN :first_day AND :last_day),
        ARRAY[]::date[]) AS nights
FROM fer.finished_night
WHERE facility_id = ANY(CAST(:facility_ids AS text[]))
GROUP BY facility_id;

-- name: find_last_sent
SELECT max(capture_day)
FROM fer.digest_delivery
WHERE subscription = :subscription AND recipient_sha256 = :recipient_sha256;

-- name: record_sent
INSERT INTO fer.digest_delivery (subscription, recipient_sha256, capture_day, run_id)
VALUES (:subscription, :recipient_sha256, :capture_day, :run_id)
ON CONFLICT (subscription, recipient_sha256, capture_day)
    DO UPDATE SET run_id = excluded.run_id, sent_at = now();
