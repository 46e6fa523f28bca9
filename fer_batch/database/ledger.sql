-- name: begin_run
-- The time is the database's clock, as in scored_at, and not now(): a session that begins the same
-- run concurrently waits for the first one and then reads the row that the first one wrote.
INSERT INTO fer.run (run_id, began_at, model_version)
VALUES (:run_id, clock_timestamp(), :model_version)
ON CONFLICT (run_id) DO UPDATE
    SET model_version = coalesce(fer.run.model_version, excluded.model_version)
RETURNING began_at, model_version;

-- name: create_listing_table
-- A listing is collected here before it is merged. The table lives as long as the session, its rows
-- as long as the transaction.
CREATE TEMPORARY TABLE IF NOT EXISTS listed_image (
    ordinal bigint GENERATED ALWAYS AS IDENTITY,
    image_key text COLLATE "C" NOT NULL,
    etag text NOT NULL,
    size_bytes bigint NOT NULL,
    is_archived boolean NOT NULL,
    camera text,
    captured_at_utc timestamptz
) ON COMMIT DELETE ROWS;

-- name: copy_listing
COPY pg_temp.listed_image (
    image_key, etag, size_bytes, is_archived, camera, captured_at_utc
) FROM STDIN;

-- name: discard_erased
DELETE FROM pg_temp.listed_image
WHERE image_key = ANY (:image_keys);

-- name: update_capture_info
-- Camera and capture time follow the facility's name template, and an object may be archived or
-- restored. Neither concerns the content of an image, so listed_at stays. Not part of
-- merge_listing, which counts the images that become work.
UPDATE fer.image AS known
SET
    camera = listed.camera,
    captured_at_utc = listed.captured_at_utc,
    is_archived = listed.is_archived
FROM pg_temp.listed_image AS listed
WHERE known.facility_id = :facility_id
    AND known.capture_day = :capture_day
    AND known.image_key = listed.image_key
    AND known.member = ''
    AND (known.camera, known.captured_at_utc, known.is_archived)
        IS DISTINCT FROM (listed.camera, listed.captured_at_utc, listed.is_archived);

-- name: merge_listing
-- Rows of unchanged images are neither written nor locked. If a listing contains a key twice, its
-- last entry counts. Where an image with the outcome `missing`, `archived` or `refused` is listed
-- again, listed_at moves past that result, so that fer.is_final no longer counts it; but not while
-- the object is still archived.
MERGE INTO fer.image AS known
USING (
    SELECT DISTINCT ON (l.image_key)
        l.image_key, l.etag, l.size_bytes, l.is_archived, l.camera, l.captured_at_utc,
        CASE WHEN NOT l.is_archived THEN unread.unread_at END AS unread_at
    FROM pg_temp.listed_image AS l
    LEFT JOIN (
        SELECT r.image_key, max(r.scored_at) AS unread_at
        FROM fer.image_result AS r
        WHERE r.facility_id = :facility_id AND r.capture_day = :capture_day
            AND r.member = '' AND r.outcome IN ('missing', 'archived', 'refused')
        GROUP BY r.image_key
    ) AS unread ON unread.image_key = l.image_key
    ORDER BY l.image_key, l.ordinal DESC
) AS listed
ON known.facility_id = :facility_id
    AND known.capture_day = :capture_day
    AND known.image_key = listed.image_key
    AND known.member = ''
WHEN MATCHED AND (known.etag <> listed.etag OR listed.unread_at >= known.listed_at) THEN
    UPDATE SET etag = listed.etag, size_bytes = listed.size_bytes, listed_at = statement_timestamp()
WHEN NOT MATCHED THEN
    INSERT (
        facility_id, capture_day, image_key, member, etag, size_bytes, first_seen_at, listed_at,
        camera, captured_at_utc, is_archived)
    VALUES (:facility_id, :capture_day, listed.image_key, '', listed.etag, listed.size_bytes,
        statement_timestamp(), statement_timestamp(), listed.camera, listed.captured_at_utc,
        listed.is_archived);

-- name: list_unlisted
-- The stored keys of a day that are not in the listing that was just merged.
SELECT i.image_key
FROM fer.image AS i
WHERE i.facility_id = :facility_id
    AND i.capture_day = :capture_day
    AND i.member = ''
    AND NOT EXISTS (SELECT FROM pg_temp.listed_image AS l WHERE l.image_key = i.image_key);

-- name: discard_faces
DELETE FROM fer.face_result
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND image_key = ANY(:image_keys);

-- name: discard_results
DELETE FROM fer.image_result
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND image_key = ANY(:image_keys);

-- name: discard_images
DELETE FROM fer.image
WHERE facility_id = :facility_id
    AND capture_day = :capture_day
    AND image_key = ANY(:image_keys);

-- name: list_unfinished
-- One page of the images in a key range that have no final result yet, in the order of their keys.
-- :from_key is :after_key (the last key of the previous page), or else the first key of the range.
SELECT image_key, member, etag, size_bytes, is_archived
FROM fer.unfinished_image(
    :facility_id, :capture_day, :model_version, :rescore_before, :from_key, :to_key)
WHERE image_key > :after_key
ORDER BY image_key, member
LIMIT :page_size;

-- name: sample_images
-- Some images of a batch, spread over its keys; first those that could be read before.
SELECT i.image_key, i.member, i.etag, i.size_bytes, i.is_archived
FROM fer.image AS i
WHERE i.facility_id = :facility_id
    AND i.capture_day = :capture_day
    AND i.size_bytes > 0
    AND NOT i.is_archived
ORDER BY
    EXISTS (
        SELECT
        FROM fer.image_result AS r
        WHERE r.facility_id = :facility_id
            AND r.capture_day = :capture_day
            AND r.image_key = i.image_key
            AND r.member = i.member
            AND r.outcome IN ('scored', 'no_face')) DESC,
    md5(i.image_key)
LIMIT :sample_size;
