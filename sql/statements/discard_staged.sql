-- Take out of the chunk what must not be written. What is not listed any more with the ETag that
-- was read; what somebody else has finished meanwhile; and, when rescoring, an image that could
-- not be read again, or once had faces looked for and cannot be decoded now, although its content
-- is known to be the same: its result stays.
-- :capture_days are those of the chunk: without them a plan holds every day that there is. OFFSET 0
-- keeps each question a look into an index. On a day that is being written, the planner knows too
-- little of the tables: it would rather read all of the facility's day, for every chunk anew.
DELETE FROM pg_temp.staged_image AS s
WHERE NOT EXISTS (
    SELECT FROM fer.image AS i
    WHERE i.capture_day = ANY (:capture_days)
        AND i.facility_id = s.facility_id
        AND i.capture_day = s.capture_day
        AND i.image_key = s.image_key
        AND i.member = s.member
        AND i.etag = s.etag
        AND NOT EXISTS (
            SELECT FROM fer.image_result AS r
            WHERE r.capture_day = ANY (:capture_days)
                AND r.facility_id = i.facility_id
                AND r.capture_day = i.capture_day
                AND r.image_key = i.image_key
                AND r.member = i.member
                AND r.model_version = :model_version
                AND fer.is_final(r.outcome, r.etag, i.etag, r.scored_at, i.listed_at,
                    CASE WHEN s.outcome IN ('vanished', 'changed', 'fetch_failed')
                        OR s.outcome IN ('killed_worker', 'unreadable', 'unsupported')
                        AND r.outcome IN ('scored', 'no_face') THEN NULL
                    ELSE CAST(:rescore_before AS timestamptz) END)
            OFFSET 0)
    OFFSET 0)
