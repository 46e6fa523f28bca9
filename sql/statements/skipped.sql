SELECT facility_id, capture_day, status, reason
FROM fer.batch
WHERE facility_id = ANY (:facility_ids)
  AND capture_day = ANY (:capture_days)
  AND status <> 'listed'
ORDER BY capture_day DESC, facility_id
