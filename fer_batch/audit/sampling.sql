-- name: list_published_days
-- The days of a window whose results are published, with the model version that was counted. Of a
-- facility that publishes by week, these are the days of its published weeks.
SELECT d.capture_day, d.model_version, coalesce(d.design_effect, w.design_effect) AS design_effect
FROM fer.satisfaction_daily AS d
LEFT JOIN fer.satisfaction_period AS w
    ON w.facility_id = d.facility_id
    AND w.period = 'week'
    AND d.capture_day BETWEEN w.first_day AND w.last_day
    AND w.model_version = d.model_version
    AND w.method IN ('raw', 'benchmark', 'local')
WHERE d.facility_id = :facility_id
    AND d.capture_day BETWEEN :first_day AND :last_day
    AND (
        d.method IN ('raw', 'benchmark', 'local')
        OR :publishes_by_week AND w.facility_id IS NOT NULL AND d.images > 0)
ORDER BY d.capture_day;

-- name: load_card
SELECT card FROM fer.model_version WHERE model_version = :model_version;

-- name: count_faces
-- The faces of the window by called class. As in a summary, pictures with the same content count
-- once, in the first of them.
SELECT f.called_class, count(*) AS faces
FROM fer.face_result AS f
JOIN fer.original_image(:facility_id, :days, :model_version) AS original
    USING (capture_day, image_key, member)
WHERE f.facility_id = :facility_id
    AND f.capture_day = ANY(:days)
    AND f.model_version = :model_version
GROUP BY f.called_class;

-- name: draw_faces
-- The faces at the :positions (from 0) of the window's faces. These are in the order of their
-- sessions, which the SHA-256 of the seed and the session decides; within a session, in order of
-- time. A session ends as in a summary, at a gap over 60 s of its camera or after 5 minutes. On a
-- day on which a time is unknown, each image is a session of its own. faces: their number in all.
WITH timed AS (
    SELECT
        *,
        bool_and(captured_at_utc IS NOT NULL) OVER (PARTITION BY capture_day) AS is_timed,
        coalesce(captured_at_utc - lag(captured_at_utc) OVER camera > interval '60 seconds', true)
            AS is_after_gap
    FROM fer.original_image(:facility_id, :days, :model_version)
    WINDOW camera AS (
        PARTITION BY capture_day, camera ORDER BY captured_at_utc, image_key, member)
),
stay AS (
    SELECT
        *,
        count(*) FILTER (WHERE is_after_gap) OVER (
            PARTITION BY capture_day, camera ORDER BY captured_at_utc, image_key, member) AS stay
    FROM timed
),
part AS (
    SELECT
        *,
        CASE WHEN is_timed
            THEN concat_ws(
                '/', capture_day, camera, stay,
                floor(extract(EPOCH FROM captured_at_utc
                    - min(captured_at_utc) OVER (PARTITION BY capture_day, camera, stay)) / 300))
            ELSE concat_ws('/', capture_day, image_key, member)
        END AS session
    FROM stay
),
placed AS (
    SELECT
        *,
        sha256(convert_to(concat_ws(':', CAST(:seed AS text), session), 'UTF8')) AS place
    FROM part
),
face AS (
    SELECT
        f.*, placed.etag, placed.size_bytes,
        dense_rank() OVER (ORDER BY placed.place) AS session_number,
        row_number() OVER (
            ORDER BY placed.place, placed.captured_at_utc, f.image_key, f.member, f.face_index
        ) - 1 AS position,
        count(*) OVER () AS faces
    FROM fer.face_result AS f
    JOIN placed USING (capture_day, image_key, member)
    WHERE f.facility_id = :facility_id
        AND f.capture_day = ANY(:days)
        AND f.model_version = :model_version
)
SELECT
    capture_day, image_key, member, etag, size_bytes, face_index, box_x, box_y, box_width,
    box_height, session_number, called_class, faces
FROM face
WHERE position = ANY(:positions)
ORDER BY position;

-- name: insert_audit
INSERT INTO fer.audit (
    facility_id, model_version, first_day, last_day, seed, faces_in_window, faces_drawn, reference)
VALUES (
    :facility_id, :model_version, :first_day, :last_day, :seed, :faces_in_window, :faces_drawn,
    CAST(:reference AS jsonb))
RETURNING audit_id;

-- name: insert_face
INSERT INTO fer.audit_face (
    audit_id, face_number, facility_id, capture_day, image_key, member, etag, size_bytes,
    face_index, box_x, box_y, box_width, box_height, session_number)
VALUES (
    :audit_id, :face_number, :facility_id, :capture_day, :image_key, :member, :etag, :size_bytes,
    :face_index, :box_x, :box_y, :box_width, :box_height, :session_number);

-- name: insert_result
INSERT INTO fer.audit_result (audit_id, face_number, facility_id, model_version, called_class)
VALUES (:audit_id, :face_number, :facility_id, :model_version, :called_class);
