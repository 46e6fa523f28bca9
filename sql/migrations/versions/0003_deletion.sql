-- Rows per image are deleted in two ways: whole days when they are old (retention), and a
-- facility's day or a single image when somebody asks for it (erasure). The images may still lie
-- in S3. What is written here keeps the next listing from bringing them back.

CREATE TABLE fer.retention (
    before_day date PRIMARY KEY,
    set_by text NOT NULL DEFAULT session_user,
    set_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The key of an erased image would be the very thing to erase. Its SHA-256 is enough to know the
-- key again in a listing.
CREATE TABLE fer.deletion (
    deletion_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('retention', 'day', 'image')),
    facility_id text COLLATE "C" REFERENCES fer.facility,
    capture_day date NOT NULL,
    key_sha256 bytea CHECK (octet_length(key_sha256) = 32),
    images bigint NOT NULL CHECK (images >= 0),
    faces bigint NOT NULL CHECK (faces >= 0),
    deleted_by text NOT NULL DEFAULT session_user,
    deleted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((kind = 'retention') = (facility_id IS NULL)),
    CHECK ((kind = 'image') = (key_sha256 IS NOT NULL))
);
CREATE UNIQUE INDEX deletion_of_day ON fer.deletion (facility_id, capture_day) WHERE kind = 'day';
CREATE UNIQUE INDEX deletion_of_image ON fer.deletion (facility_id, key_sha256, capture_day)
    WHERE kind = 'image';

CREATE TRIGGER retention_is_kept BEFORE UPDATE OR DELETE ON fer.retention
    FOR EACH ROW EXECUTE FUNCTION fer.refuse_change();
CREATE TRIGGER retention_is_not_emptied BEFORE TRUNCATE ON fer.retention
    FOR EACH STATEMENT EXECUTE FUNCTION fer.refuse_change();
CREATE TRIGGER deletion_is_kept BEFORE UPDATE OR DELETE ON fer.deletion
    FOR EACH ROW EXECUTE FUNCTION fer.refuse_change();
CREATE TRIGGER deletion_is_not_emptied BEFORE TRUNCATE ON fer.deletion
    FOR EACH STATEMENT EXECUTE FUNCTION fer.refuse_change();

CREATE FUNCTION fer.is_day_deleted(facility_id text, capture_day date) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN EXISTS (SELECT FROM fer.retention AS r WHERE r.before_day > $2)
    OR EXISTS (
        SELECT FROM fer.deletion AS d
        WHERE d.kind = 'day' AND d.facility_id = $1 AND d.capture_day = $2);
COMMENT ON FUNCTION fer.is_day_deleted IS
    'Whether the rows per image of a facility''s capture day were deleted for good, by retention or by an erasure: the day is not listed again.';

-- Erased images stay in the summary as a number, so that a day says what it leaves out.
CREATE FUNCTION fer.erased_images(facility_id text, capture_day date) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT coalesce(sum(d.images), 0)::bigint
    FROM fer.deletion AS d
    WHERE d.kind IN ('day', 'image') AND d.facility_id = $1 AND d.capture_day = $2);
COMMENT ON FUNCTION fer.erased_images IS
    'How many images of a facility''s capture day were erased.';

COMMENT ON TABLE fer.retention IS 'How far retention has gone: rows per image of days before the newest before_day are gone for good, and such days are not listed again. Rows are never changed or deleted.';
COMMENT ON COLUMN fer.retention.before_day IS 'Days before this one were dropped';
COMMENT ON COLUMN fer.retention.set_by IS 'User of the database who did it';
COMMENT ON COLUMN fer.retention.set_at IS 'When it began';
COMMENT ON TABLE fer.deletion IS 'What was deleted for good, without what it said: days by retention, facility days and images by erasure. Erased images are not read again. Rows are never changed or deleted.';
COMMENT ON COLUMN fer.deletion.deletion_id IS 'The larger, the newer';
COMMENT ON COLUMN fer.deletion.kind IS 'retention: a day of all facilities that was old enough. day: a day of one facility was erased. image: one image was erased';
COMMENT ON COLUMN fer.deletion.facility_id IS 'Facility, see facility; null: retention, which is for all';
COMMENT ON COLUMN fer.deletion.capture_day IS 'Capture day of the rows that were deleted';
COMMENT ON COLUMN fer.deletion.key_sha256 IS 'SHA-256 of the key of an erased image, by which a listing leaves it out; null: a whole day';
COMMENT ON COLUMN fer.deletion.images IS 'Rows of image that were deleted';
COMMENT ON COLUMN fer.deletion.faces IS 'Rows of face_result that were deleted, of all model versions';
COMMENT ON COLUMN fer.deletion.deleted_by IS 'User of the database who did it';
COMMENT ON COLUMN fer.deletion.deleted_at IS 'When';
COMMENT ON COLUMN fer.satisfaction_summary.not_scored IS 'Images that will not be scored, counted by outcome, such as {"no_face": 3}; erased: deleted since on demand. As rows: view not_scored_daily';
