-- When rescoring: the results that stay because their images cannot be decoded any more. They take
-- the run and its time, or every retry would decode the images again. The days, facilities and first
-- and last key are those of the chunk: whatever the plan, it reads no more than what lies between.
UPDATE fer.image_result AS r
SET run_id = :run_id, scored_at = statement_timestamp()
FROM pg_temp.staged_image AS s
WHERE r.capture_day = ANY (:capture_days)
    AND r.facility_id = ANY (:facility_ids)
    AND r.image_key BETWEEN :first_key AND :last_key
    AND r.facility_id = s.facility_id
    AND r.capture_day = s.capture_day
    AND r.image_key = s.image_key
    AND r.member = s.member
    AND r.model_version = :model_version
    AND r.etag = s.etag
    AND r.outcome IN ('scored', 'no_face')
    AND r.scored_at < :rescore_before
    AND s.outcome IN ('killed_worker', 'unreadable', 'unsupported')
