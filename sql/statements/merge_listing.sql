-- Rows of images that are as they were are neither written nor locked. Should a listing name a
-- key twice, what it said last counts.
MERGE INTO fer.image AS known
USING (
    SELECT DISTINCT ON (l.image_key) l.image_key, l.etag, l.size_bytes, gone.vanished_at
    FROM pg_temp.listed_image AS l
    LEFT JOIN (
        SELECT r.image_key, max(r.scored_at) AS vanished_at
        FROM fer.image_result AS r
        WHERE r.facility_id = :facility_id AND r.capture_day = :capture_day
            AND r.member = '' AND r.outcome = 'vanished'
        GROUP BY r.image_key
    ) AS gone ON gone.image_key = l.image_key
    ORDER BY l.image_key, l.place DESC
) AS listed
ON known.facility_id = :facility_id
    AND known.capture_day = :capture_day
    AND known.image_key = listed.image_key
    AND known.member = ''
WHEN MATCHED AND (known.etag <> listed.etag OR listed.vanished_at >= known.listed_at) THEN
    UPDATE SET etag = listed.etag, size_bytes = listed.size_bytes, listed_at = statement_timestamp()
WHEN NOT MATCHED THEN
    INSERT (facility_id, capture_day, image_key, member, etag, size_bytes, first_seen_at, listed_at)
    VALUES (:facility_id, :capture_day, listed.image_key, '', listed.etag, listed.size_bytes,
        statement_timestamp(), statement_timestamp())
