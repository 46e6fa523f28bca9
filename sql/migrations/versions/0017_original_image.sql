-- Audits and the drift check count the same images: it is one rule, as in a summary. The comment of
-- another function is worded more clearly.

CREATE FUNCTION fer.original_image(facility_id text, capture_days date[], model_version text)
RETURNS SETOF fer.image LANGUAGE sql STABLE PARALLEL SAFE AS $body$
    SELECT DISTINCT ON (i.capture_day, i.etag) i.*
    FROM fer.image AS i
    JOIN fer.image_result AS r
        ON r.facility_id = i.facility_id
        AND r.capture_day = i.capture_day
        AND r.image_key = i.image_key
        AND r.member = i.member
        AND r.capture_day = ANY($2)
        AND r.model_version = $3
    WHERE i.facility_id = $1
        AND i.capture_day = ANY($2)
        AND r.outcome = 'scored'
        AND fer.is_final(r.outcome, r.etag, i.etag, r.scored_at, i.listed_at, NULL)
    ORDER BY i.capture_day, i.etag, i.captured_at_utc, i.image_key, i.member
$body$;
COMMENT ON FUNCTION fer.original_image IS
    'The images of some days of a facility that have a final result of this model version with faces that count: of images of a day with the same ETag, and so the same content, the first.';

COMMENT ON FUNCTION fer.hits_many IS
    'Whether an outcome is so frequent on a day that its images probably have one cause: all images have it, or at least 3 and more than 20 %.';
