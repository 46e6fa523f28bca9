SELECT facility_id, capture_day, count(*) AS images
FROM fer.image_result
WHERE facility_id = ANY (:facility_ids)
  AND capture_day = ANY (:capture_days)
  AND model_version = :model_version
  AND outcome NOT IN ('changed', 'fetch_failed')
GROUP BY facility_id, capture_day
