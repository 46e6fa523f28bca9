INSERT INTO fer.image_result (
    facility_id, capture_day, image_key, member, model_version, etag, outcome, reason, p_happy,
    p_sad, p_neither, is_uncertain, face_count, width_px, height_px, size_bytes, run_id, scored_at
)
SELECT
    s.facility_id, s.capture_day, s.image_key, s.member, :model_version, s.etag, s.outcome,
    s.reason, f.p_happy, f.p_sad, f.p_neither, f.is_uncertain, coalesce(f.face_count, 0),
    s.width_px, s.height_px, s.size_bytes, :run_id, statement_timestamp()
FROM pg_temp.staged_image AS s
LEFT JOIN (
    SELECT
        facility_id, capture_day, image_key, member,
        count(*) AS face_count,
        avg(p_happy) AS p_happy,
        avg(p_sad) AS p_sad,
        avg(p_neither) AS p_neither,
        bool_and(is_uncertain) AS is_uncertain
    FROM pg_temp.staged_face
    GROUP BY facility_id, capture_day, image_key, member
) AS f USING (facility_id, capture_day, image_key, member)
ON CONFLICT (facility_id, capture_day, image_key, member, model_version) DO UPDATE SET
    etag = excluded.etag,
    outcome = excluded.outcome,
    reason = excluded.reason,
    p_happy = excluded.p_happy,
    p_sad = excluded.p_sad,
    p_neither = excluded.p_neither,
    is_uncertain = excluded.is_uncertain,
    face_count = excluded.face_count,
    width_px = excluded.width_px,
    height_px = excluded.height_px,
    size_bytes = excluded.size_bytes,
    run_id = excluded.run_id,
    scored_at = excluded.scored_at
