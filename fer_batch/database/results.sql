-- name: list_finished
-- The ETag of each result that is final as long as its image has this ETag. is_unread: a listing
-- that contains the image again makes it unfinished, unless the object is archived.
SELECT
    r.image_key,
    r.etag,
    r.outcome IN ('missing', 'archived', 'refused') AS is_unread
FROM fer.image AS i
JOIN fer.image_result AS r
    ON r.facility_id = i.facility_id
    AND r.capture_day = i.capture_day
    AND r.image_key = i.image_key
    AND r.member = i.member
    AND r.model_version = :model_version
WHERE i.facility_id = :facility_id
    AND i.capture_day = :capture_day
    AND i.member = ''
    AND fer.is_final(r.outcome, r.etag, r.etag, r.scored_at, i.listed_at, NULL);

-- name: count_outcomes
-- The results that a run has written in key ranges, by outcome. The ranges are given as columns.
SELECT r.outcome, count(*) AS images
FROM unnest(
        CAST(:facility_ids AS text[]), CAST(:capture_days AS date[]),
        CAST(:first_keys AS text[]), CAST(:last_keys AS text[])
    ) AS key_range (facility_id, capture_day, first_key, last_key)
JOIN fer.image_result AS r
    ON r.facility_id = key_range.facility_id
    AND r.capture_day = key_range.capture_day
    AND r.capture_day = ANY (:capture_days)
    AND r.image_key >= key_range.first_key COLLATE "C"
    AND r.image_key <= key_range.last_key COLLATE "C"
WHERE r.model_version = :model_version AND r.run_id = :run_id
GROUP BY r.outcome;

-- name: create_image_staging
-- The image results of a chunk are collected here before they are merged. The table lives as long
-- as the session, its rows as long as the transaction.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_image (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    image_key text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,
    etag text NOT NULL,
    outcome text NOT NULL,
    reason text NOT NULL,
    emotion text,
    called_class text,
    width_px integer,
    height_px integer,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (facility_id, capture_day, image_key, member)
) ON COMMIT DELETE ROWS;

-- name: create_face_staging
-- The faces of a chunk, collected in the same way.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_face (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    image_key text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,
    face_index smallint NOT NULL,
    box_x integer NOT NULL,
    box_y integer NOT NULL,
    box_width integer NOT NULL,
    box_height integer NOT NULL,
    detector_score real,
    p_happy real NOT NULL,
    p_sad real NOT NULL,
    p_neither real NOT NULL,
    emotion text NOT NULL,
    called_class text NOT NULL,
    PRIMARY KEY (facility_id, capture_day, image_key, member, face_index)
) ON COMMIT DELETE ROWS;

-- name: copy_images
COPY pg_temp.staged_image (
    facility_id, capture_day, image_key, member, etag, outcome, reason, emotion, called_class,
    width_px, height_px, size_bytes
) FROM STDIN;

-- name: copy_faces
COPY pg_temp.staged_face (
    facility_id, capture_day, image_key, member, face_index, box_x, box_y, box_width, box_height,
    detector_score, p_happy, p_sad, p_neither, emotion, called_class
) FROM STDIN;

-- name: keep_decoded
-- When rescoring: results that stay because their image can no longer be decoded. They get the run
-- and its time, or every retry would decode the image again. The days, the facilities, and the
-- first and last key are those of the chunk, so that every plan reads only rows between them.
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
    AND r.outcome = ANY (:decoded_outcomes)
    AND r.scored_at < :rescore_before
    AND s.outcome = ANY (:undecodable_outcomes);

-- name: discard_staged
-- Rows that must not be written are removed from the chunk: images that are no longer listed with
-- the ETag that was read; images that another process has finished; and, when rescoring, images
-- that could not be read again, or that were decoded before and cannot be decoded now although
-- their content is the same: these keep their result.
-- :capture_days are those of the chunk; without them a plan includes the partitions of all days.
-- OFFSET 0 keeps each subquery an index lookup. While a day is being written, the planner has too
-- few statistics and would otherwise read the facility's whole day for every chunk.
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
                    CASE WHEN s.outcome = ANY (:unread_outcomes)
                        OR s.outcome = ANY (:undecodable_outcomes)
                        AND r.outcome = ANY (:decoded_outcomes) THEN NULL
                    ELSE CAST(:rescore_before AS timestamptz) END)
            OFFSET 0)
    OFFSET 0);

-- name: merge_images
INSERT INTO fer.image_result (
    facility_id, capture_day, image_key, member, model_version, etag, outcome, reason, emotion,
    called_class, p_happy, p_sad, p_neither, face_count, width_px, height_px, size_bytes, run_id,
    scored_at
)
SELECT
    s.facility_id, s.capture_day, s.image_key, s.member, :model_version, s.etag, s.outcome,
    s.reason, s.emotion, s.called_class, f.p_happy, f.p_sad, f.p_neither,
    coalesce(f.face_count, 0), s.width_px, s.height_px, s.size_bytes, :run_id,
    statement_timestamp()
FROM pg_temp.staged_image AS s
LEFT JOIN (
    SELECT
        facility_id, capture_day, image_key, member,
        count(*) AS face_count,
        avg(p_happy) AS p_happy,
        avg(p_sad) AS p_sad,
        avg(p_neither) AS p_neither
    FROM pg_temp.staged_face
    GROUP BY facility_id, capture_day, image_key, member
) AS f USING (facility_id, capture_day, image_key, member)
ON CONFLICT (facility_id, capture_day, image_key, member, model_version) DO UPDATE SET
    etag = excluded.etag,
    outcome = excluded.outcome,
    reason = excluded.reason,
    emotion = excluded.emotion,
    called_class = excluded.called_class,
    p_happy = excluded.p_happy,
    p_sad = excluded.p_sad,
    p_neither = excluded.p_neither,
    face_count = excluded.face_count,
    width_px = excluded.width_px,
    height_px = excluded.height_px,
    size_bytes = excluded.size_bytes,
    run_id = excluded.run_id,
    scored_at = excluded.scored_at;

-- name: delete_faces
-- Faces of the results that the chunk replaces. The days, the facilities, and the first and last
-- key are those of the chunk, so that every plan reads only rows between them.
DELETE FROM fer.face_result AS f
USING pg_temp.staged_image AS s
WHERE f.capture_day = ANY (:capture_days)
    AND f.facility_id = ANY (:facility_ids)
    AND f.image_key BETWEEN :first_key AND :last_key
    AND f.facility_id = s.facility_id
    AND f.capture_day = s.capture_day
    AND f.image_key = s.image_key
    AND f.member = s.member
    AND f.model_version = :model_version;

-- name: merge_faces
INSERT INTO fer.face_result (
    facility_id, capture_day, image_key, member, model_version, face_index, box_x, box_y,
    box_width, box_height, detector_score, p_happy, p_sad, p_neither, emotion, called_class
)
SELECT
    f.facility_id, f.capture_day, f.image_key, f.member, :model_version, f.face_index, f.box_x,
    f.box_y, f.box_width, f.box_height, f.detector_score, f.p_happy, f.p_sad, f.p_neither,
    f.emotion, f.called_class
FROM pg_temp.staged_face AS f
JOIN pg_temp.staged_image USING (facility_id, capture_day, image_key, member);
