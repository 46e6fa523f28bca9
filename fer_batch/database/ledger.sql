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
    camera text,
    captured_at_utc timestamptz
) ON COMMIT DELETE ROWS;

-- name: copy_listing
COPY pg_temp.listed_image (image_key, etag, size_bytes, camera, captured_at_utc) FROM STDIN;

-- name: discard_erased
-- Erased images are removed from the listing, whatever their ETag: they are never read again.
DELETE FROM pg_temp.listed_image AS l
USING fer.deletion AS d
WHERE d.kind = 'image'
    AND d.facility_id = :facility_id
    AND d.key_sha256 = sha256(convert_to(l.image_key, 'UTF8'));

-- name: update_capture_info
-- Camera and capture time follow the facility's name template. They do not concern the content of
-- an image, so listed_at stays, and the image is no work. Not part of merge_listing, which counts
-- the images that become work.
UPDATE fer.image AS known
SET camera = listed.camera, captured_at_utc = listed.captured_at_utc
FROM pg_temp.listed_image AS listed
WHERE known.facility_id = :facility_id
    AND known.capture_day = :capture_day
    AND known.image_key = listed.image_key
    AND known.member = ''
    AND (known.camera, known.captured_at_utc)
        IS DISTINCT FROM (listed.camera, listed.captured_at_utc);

-- name: merge_listing
-- Rows of unchanged images are neither written nor locked. If a listing contains a key twice, its
-- last entry counts. Where an image with the outcome `missing` is listed again, listed_at moves
-- past that result, so that fer.is_final no longer counts it.
MERGE INTO fer.image AS known
USING (
    SELECT DISTINCT ON (l.image_key)
        l.image_key, l.etag, l.size_bytes, l.camera, l.captured_at_utc, missing.missing_at
    FROM pg_temp.listed_image AS l
    LEFT JOIN (
        SELECT r.image_key, max(r.scored_at) AS missing_at
        FROM fer.image_result AS r
        WHERE r.facility_id = :facility_id AND r.capture_day = :capture_day
            AND r.member = '' AND r.outcome = 'missing'
        GROUP BY r.image_key
    ) AS missing ON missing.image_key = l.image_key
    ORDER BY l.image_key, l.ordinal DESC
) AS listed
ON known.facility_id = :facility_id
    AND known.capture_day = :capture_day
    AND known.image_key = listed.image_key
    AND known.member = ''
WHEN MATCHED AND (known.etag <> listed.etag OR listed.missing_at >= known.listed_at) THEN
    UPDATE SET etag = listed.etag, size_bytes = listed.size_bytes, listed_at = statement_timestamp()
WHEN NOT MATCHED THEN
    INSERT (
        facility_id, capture_day, image_key, member, etag, size_bytes, first_seen_at, listed_at,
        camera, captured_at_utc)
    VALUES (:facility_id, :capture_day, listed.image_key, '', listed.etag, listed.size_bytes,
        statement_timestamp(), statement_timestamp(), listed.camera, listed.captured_at_utc);

-- name: list_unfinished
-- One page of the images in a key range that have no final result yet, in the order of their keys.
-- :from_key is :after_key (the last key of the previous page), or else the first key of the range.
SELECT image_key, member, etag, size_bytes
FROM fer.unfinished_image(
    :facility_id, :capture_day, :model_version, :rescore_before, :from_key, :to_key)
WHERE image_key > :after_key
ORDER BY image_key, member
LIMIT :page_size;
