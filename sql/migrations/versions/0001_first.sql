-- The first tables of fer-batch, for PostgreSQL 15 and newer. Order: registry, model versions,
-- ledger (batch, run, image), results (image_result, face_result), summaries, functions, comments.
--
-- Columns that are part of a key are COLLATE "C": keys compare as bytes, on every machine alike.
-- The three tables by image are partitioned by capture day and carry no foreign keys: their rows
-- are written by two statements only, which join them with their image, and at a million rows a
-- day a trigger per row is too dear. sql/checks counts what a foreign key would have refused.

COMMENT ON SCHEMA fer IS
    'fer-batch: did the customers of each facility leave with a happy expression? Start with the view satisfaction_daily.';

COMMENT ON TABLE fer.schema_version IS 'Which migration this schema is at. One row, written by fer-batch db upgrade.';
COMMENT ON COLUMN fer.schema_version.version_num IS 'Number of the newest migration that was run';


CREATE TABLE fer.facility (
    facility_id text COLLATE "C" PRIMARY KEY CHECK (facility_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    name text NOT NULL CHECK (name <> ''),
    time_zone text NOT NULL,
    image_kind text NOT NULL CHECK (image_kind IN ('crops', 'frames')),
    key_template text NOT NULL,
    bucket text,
    target_share double precision NOT NULL CHECK (target_share BETWEEN 0 AND 1),
    expected_images_min integer NOT NULL DEFAULT 0 CHECK (expected_images_min >= 0),
    closed_weekdays text[] NOT NULL DEFAULT '{}'
        CHECK (closed_weekdays <@ ARRAY['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']),
    permission_purpose text,
    permission_lawful_basis text,
    permission_approved_by text,
    permission_valid_until date,
    is_in_registry boolean NOT NULL DEFAULT true,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE fer.model_version (
    model_version text COLLATE "C" PRIMARY KEY CHECK (model_version ~ '^[0-9a-f]{64}$'),
    manifest jsonb NOT NULL,
    card jsonb NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE fer.batch (
    facility_id text COLLATE "C" NOT NULL REFERENCES fer.facility,
    capture_day date NOT NULL,
    status text NOT NULL CHECK (status IN ('listed', 'not_ready', 'no_permission', 'failed')),
    reason text NOT NULL DEFAULT '',
    images_listed bigint CHECK (images_listed >= 0),
    bytes_listed bigint CHECK (bytes_listed >= 0),
    listed_at timestamptz,
    attempted_at timestamptz NOT NULL,
    run_id text NOT NULL,
    PRIMARY KEY (facility_id, capture_day),
    CHECK (num_nonnulls(images_listed, bytes_listed, listed_at) IN (0, 3)),
    CHECK (status <> 'listed' OR listed_at IS NOT NULL)
);
CREATE INDEX batch_capture_day ON fer.batch (capture_day);

CREATE TABLE fer.run (
    run_id text PRIMARY KEY,
    began_at timestamptz NOT NULL
);

CREATE TABLE fer.image (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    image_key text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL DEFAULT '',
    etag text NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    first_seen_at timestamptz NOT NULL,
    listed_at timestamptz NOT NULL,
    PRIMARY KEY (facility_id, capture_day, image_key, member)
) PARTITION BY RANGE (capture_day);

-- The emotion is computed from the stored probabilities, so the two can never disagree.
CREATE TABLE fer.image_result (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    image_key text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL DEFAULT '',
    model_version text COLLATE "C" NOT NULL,
    etag text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN (
        'scored', 'no_face', 'empty', 'unreadable', 'unsupported', 'too_large', 'too_small',
        'vanished', 'killed_worker', 'changed', 'fetch_failed')),
    reason text NOT NULL DEFAULT '' CHECK (char_length(reason) <= 200),
    emotion text GENERATED ALWAYS AS (
        CASE WHEN p_happy IS NULL THEN NULL WHEN p_happy >= p_sad THEN 'Happy' ELSE 'Sad' END
    ) STORED CHECK (emotion IN ('Happy', 'Sad')),
    p_happy real CHECK (p_happy BETWEEN 0 AND 1),
    p_sad real CHECK (p_sad BETWEEN 0 AND 1),
    p_neither real CHECK (p_neither BETWEEN 0 AND 1),
    is_uncertain boolean,
    face_count smallint NOT NULL CHECK (face_count >= 0),
    width_px integer CHECK (width_px > 0),
    height_px integer CHECK (height_px > 0),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    run_id text NOT NULL,
    scored_at timestamptz NOT NULL,
    PRIMARY KEY (facility_id, capture_day, image_key, member, model_version),
    CHECK ((outcome = 'scored') = (face_count > 0)),
    CHECK (num_nonnulls(p_happy, p_sad, p_neither, is_uncertain)
        = CASE WHEN outcome = 'scored' THEN 4 ELSE 0 END)
) PARTITION BY RANGE (capture_day);

CREATE TABLE fer.face_result (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    image_key text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL DEFAULT '',
    model_version text COLLATE "C" NOT NULL,
    face_index smallint NOT NULL CHECK (face_index >= 0),
    box_x integer NOT NULL,
    box_y integer NOT NULL,
    box_width integer NOT NULL CHECK (box_width > 0),
    box_height integer NOT NULL CHECK (box_height > 0),
    detector_score real CHECK (detector_score BETWEEN 0 AND 1),
    p_happy real NOT NULL CHECK (p_happy BETWEEN 0 AND 1),
    p_sad real NOT NULL CHECK (p_sad BETWEEN 0 AND 1),
    p_neither real NOT NULL CHECK (p_neither BETWEEN 0 AND 1),
    emotion text NOT NULL GENERATED ALWAYS AS (
        CASE WHEN p_happy >= p_sad THEN 'Happy' ELSE 'Sad' END
    ) STORED CHECK (emotion IN ('Happy', 'Sad')),
    is_uncertain boolean NOT NULL,
    PRIMARY KEY (facility_id, capture_day, image_key, member, model_version, face_index)
) PARTITION BY RANGE (capture_day);

CREATE TABLE fer.satisfaction_summary (
    facility_id text COLLATE "C" NOT NULL REFERENCES fer.facility,
    capture_day date NOT NULL,
    revision integer NOT NULL CHECK (revision >= 1),
    model_version text COLLATE "C" NOT NULL REFERENCES fer.model_version,
    target_share double precision NOT NULL CHECK (target_share BETWEEN 0 AND 1),
    time_zone text NOT NULL,
    images bigint NOT NULL CHECK (images >= 0),
    images_scored bigint NOT NULL CHECK (images_scored >= 0),
    images_pending bigint NOT NULL CHECK (images_pending >= 0),
    not_scored jsonb NOT NULL CHECK (jsonb_typeof(not_scored) = 'object'),
    faces bigint NOT NULL CHECK (faces >= 0),
    happy bigint NOT NULL CHECK (happy >= 0),
    sad bigint NOT NULL CHECK (sad >= 0),
    uncertain bigint NOT NULL CHECK (uncertain >= 0),
    neither bigint NOT NULL CHECK (neither BETWEEN 0 AND faces),
    happy_share double precision,
    happy_share_low double precision,
    happy_share_high double precision,
    interval_method text NOT NULL CHECK (interval_method IN ('wilson')),
    confidence double precision NOT NULL CHECK (confidence > 0 AND confidence < 1),
    uncertain_share double precision,
    neither_share double precision,
    verdict text NOT NULL
        CHECK (verdict IN ('satisfied', 'not satisfied', 'inconclusive', 'suppressed')),
    is_complete boolean NOT NULL,
    is_below_expected boolean NOT NULL,
    run_id text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (facility_id, capture_day, revision),
    CHECK (happy + sad + uncertain = faces),
    CHECK (images_scored + images_pending <= images),
    CHECK (num_nonnulls(happy_share, happy_share_low, happy_share_high, uncertain_share,
        neither_share) = CASE WHEN verdict = 'suppressed' THEN 0 ELSE 5 END),
    CHECK (0 <= happy_share_low AND happy_share_low <= happy_share
        AND happy_share <= happy_share_high AND happy_share_high <= 1),
    CHECK (uncertain_share BETWEEN 0 AND 1 AND neither_share BETWEEN 0 AND 1)
);
CREATE INDEX satisfaction_summary_capture_day ON fer.satisfaction_summary (capture_day);


-- Whether a result settles its image, in one place. An ETag names the content, so a result holds
-- for as long as the image has its ETag. Only `vanished` also compares the times: a listing that
-- sees such an object again sets listed_at, which makes it work again. The database's clock sets
-- all three times. Keep the list of outcomes equal to fer_batch.records.NOT_FINAL (tested).
CREATE FUNCTION fer.is_final(
    outcome text, result_etag text, image_etag text,
    scored_at timestamptz, listed_at timestamptz, rescore_before timestamptz
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    result_etag = image_etag
    AND outcome NOT IN ('changed', 'fetch_failed')
    AND (outcome <> 'vanished' OR scored_at >= listed_at)
    AND (rescore_before IS NULL OR scored_at >= rescore_before),
    false);
COMMENT ON FUNCTION fer.is_final IS
    'Whether a result settles its image, so that the next run leaves it alone. rescore_before: results older than this do not count; null for none.';

-- The work of a batch, in one place. Inlined into the statement that asks, so its ORDER BY and
-- LIMIT reach the index. Both tables get the bounds of the keys: bounds on one only would have a
-- merge join read the other from the day's first key, for every page anew.
CREATE FUNCTION fer.unfinished_image(
    facility_id text, capture_day date, model_version text,
    rescore_before timestamptz DEFAULT NULL,
    from_key text DEFAULT '', to_key text DEFAULT NULL
) RETURNS SETOF fer.image LANGUAGE sql STABLE PARALLEL SAFE AS $body$
    SELECT i.*
    FROM fer.image AS i
    LEFT JOIN fer.image_result AS r
        ON r.facility_id = i.facility_id
        AND r.capture_day = i.capture_day
        AND r.image_key = i.image_key
        AND r.member = i.member
        AND r.model_version = $3
        AND r.facility_id = $1
        AND r.capture_day = $2
        AND r.image_key >= $5 COLLATE "C"
        AND ($6 IS NULL OR r.image_key <= $6 COLLATE "C")
    WHERE i.facility_id = $1
        AND i.capture_day = $2
        AND i.image_key >= $5 COLLATE "C"
        AND ($6 IS NULL OR i.image_key <= $6 COLLATE "C")
        AND NOT fer.is_final(r.outcome, r.etag, i.etag, r.scored_at, i.listed_at, $4)
$body$;
COMMENT ON FUNCTION fer.unfinished_image IS
    'The images of a facility and capture day that have no final result of this model version. rescore_before: results older than this do not count; null for none. from_key, to_key: only keys between these, both included.';

-- Create, then ATTACH: CREATE TABLE … PARTITION OF takes a lock on the parent that stops every
-- reader, ATTACH does not. Sessions that do it at once wait for each other; the second finds
-- nothing left to do. The first look is without the lock, since nearly always nothing is missing.
CREATE FUNCTION fer.ensure_partitions(days date[]) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    missing record;
    created integer := 0;
BEGIN
    FOR round IN 1..2 LOOP
        FOR missing IN
            SELECT p.parent, d.day, format('%s_%s', p.parent, to_char(d.day, 'YYYY_MM_DD')) AS child
            FROM unnest(ARRAY['image', 'image_result', 'face_result']) WITH ORDINALITY AS p (parent, place)
            CROSS JOIN (SELECT DISTINCT unnest(days) AS day) AS d
            WHERE NOT EXISTS (
                SELECT FROM pg_inherits AS i
                JOIN pg_class AS c ON c.oid = i.inhrelid
                WHERE i.inhparent = to_regclass(format('fer.%I', p.parent))
                    AND c.relname = format('%s_%s', p.parent, to_char(d.day, 'YYYY_MM_DD')))
            ORDER BY d.day, p.place
        LOOP
            EXIT WHEN round = 1;
            EXECUTE format('CREATE TABLE fer.%I (LIKE fer.%I INCLUDING ALL)', missing.child, missing.parent);
            EXECUTE format('COMMENT ON TABLE fer.%I IS %L', missing.child,
                format('The rows of capture day %s. Query fer.%s instead: it holds every day.',
                    missing.day, missing.parent));
            EXECUTE format('ALTER TABLE fer.%I ATTACH PARTITION fer.%I FOR VALUES FROM (%L) TO (%L)',
                missing.parent, missing.child, missing.day, missing.day + 1);
            created := created + 1;
        END LOOP;
        EXIT WHEN NOT FOUND;
        IF round = 1 THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('fer.ensure_partitions', 0));
        END IF;
    END LOOP;
    RETURN created;
END
$body$;
COMMENT ON FUNCTION fer.ensure_partitions IS
    'Creates the partitions of image, image_result and face_result that are missing for these capture days; returns how many it created. Safe when several sessions do it at once.';


COMMENT ON TABLE fer.facility IS 'One row per shop, centre or branch: the facility registry as the last run read it, with the permission on record.';
COMMENT ON COLUMN fer.facility.facility_id IS 'Short name of the facility, as in its keys: small letters, digits, - and _';
COMMENT ON COLUMN fer.facility.name IS 'Name to show to people';
COMMENT ON COLUMN fer.facility.time_zone IS 'IANA time zone, such as Europe/Berlin; says when a capture day is over';
COMMENT ON COLUMN fer.facility.image_kind IS 'crops: each image is one face. frames: camera pictures in which faces are searched';
COMMENT ON COLUMN fer.facility.key_template IS 'How the keys of a capture day begin, such as {facility_id}/{capture_day:%Y-%m-%d}/';
COMMENT ON COLUMN fer.facility.bucket IS 'S3 bucket of this facility; null: the bucket of the settings';
COMMENT ON COLUMN fer.facility.target_share IS 'Happy share (0 to 1) that the facility aims for; verdicts compare with it';
COMMENT ON COLUMN fer.facility.expected_images_min IS 'Images that an open day has at least; fewer is a finding';
COMMENT ON COLUMN fer.facility.closed_weekdays IS 'Weekdays on which the facility is closed: mon, tue, wed, thu, fri, sat, sun';
COMMENT ON COLUMN fer.facility.permission_purpose IS 'What the images may be processed for; null: no permission is recorded';
COMMENT ON COLUMN fer.facility.permission_lawful_basis IS 'Lawful basis of the processing; null: no permission is recorded';
COMMENT ON COLUMN fer.facility.permission_approved_by IS 'Who approved the processing; null: no permission is recorded';
COMMENT ON COLUMN fer.facility.permission_valid_until IS 'Last day of the permission; later, or null, no image is listed or read';
COMMENT ON COLUMN fer.facility.is_in_registry IS 'False: taken out of the registry since; its history stays';
COMMENT ON COLUMN fer.facility.updated_at IS 'When this row last changed';

COMMENT ON TABLE fer.model_version IS 'One row per model version: everything that decides a result, under one name.';
COMMENT ON COLUMN fer.model_version.model_version IS 'SHA-256 of the manifest, 64 hexadecimal digits';
COMMENT ON COLUMN fer.model_version.manifest IS 'What decides a result: CNN, face detector, cropping, limits, threshold';
COMMENT ON COLUMN fer.model_version.card IS 'Model card of the CNN: how it was trained, on what, and how well it does';
COMMENT ON COLUMN fer.model_version.registered_at IS 'When a run first used this model version';

COMMENT ON TABLE fer.batch IS 'One row per facility and capture day that a run has looked at: how the listing of its images went.';
COMMENT ON COLUMN fer.batch.facility_id IS 'Facility, see facility';
COMMENT ON COLUMN fer.batch.capture_day IS 'Calendar date in the keys of the images';
COMMENT ON COLUMN fer.batch.status IS 'How the last attempt went. listed: all images of the day are known. not_ready: the upload is not finished. no_permission: not one image was looked at. failed: S3 could not be listed';
COMMENT ON COLUMN fer.batch.reason IS 'Why the last attempt did not list the images; empty where it did';
COMMENT ON COLUMN fer.batch.images_listed IS 'Images that the last successful listing saw; null: none succeeded yet';
COMMENT ON COLUMN fer.batch.bytes_listed IS 'Sum of their sizes, in bytes; null: none succeeded yet';
COMMENT ON COLUMN fer.batch.listed_at IS 'When the last successful listing began; null: none succeeded yet';
COMMENT ON COLUMN fer.batch.attempted_at IS 'When the last attempt began';
COMMENT ON COLUMN fer.batch.run_id IS 'Run that made the last attempt';

COMMENT ON TABLE fer.run IS 'One row per run: when it began. A run that rescores counts older results as not there, also when it is tried again.';
COMMENT ON COLUMN fer.run.run_id IS 'Name of the run, as Airflow shows it';
COMMENT ON COLUMN fer.run.began_at IS 'When the run first asked for its work';

COMMENT ON TABLE fer.image IS 'One row per image that a listing has seen. Rows stay when the object is deleted later. Partitioned by capture day: say which days you want.';
COMMENT ON COLUMN fer.image.facility_id IS 'Facility, see facility';
COMMENT ON COLUMN fer.image.capture_day IS 'Calendar date in the key';
COMMENT ON COLUMN fer.image.image_key IS 'S3 key of the image; keys sort as bytes';
COMMENT ON COLUMN fer.image.member IS 'Empty: the object itself is the image. Kept for archives of many images';
COMMENT ON COLUMN fer.image.etag IS 'ETag of the object when it was last listed: names its content';
COMMENT ON COLUMN fer.image.size_bytes IS 'Size of the object, in bytes';
COMMENT ON COLUMN fer.image.first_seen_at IS 'When a listing first saw this key';
COMMENT ON COLUMN fer.image.listed_at IS 'When a listing first saw this ETag, or saw a vanished object again';

COMMENT ON TABLE fer.image_result IS 'One row per image and model version: what became of the image. Partitioned by capture day: say which days you want.';
COMMENT ON COLUMN fer.image_result.facility_id IS 'Facility, see facility';
COMMENT ON COLUMN fer.image_result.capture_day IS 'Calendar date in the key';
COMMENT ON COLUMN fer.image_result.image_key IS 'S3 key of the image';
COMMENT ON COLUMN fer.image_result.member IS 'Empty: the object itself is the image';
COMMENT ON COLUMN fer.image_result.model_version IS 'Model version that decided this result, see model_version';
COMMENT ON COLUMN fer.image_result.etag IS 'ETag of the content that was read. Where it is not the one in image, the result is of an older content and does not count';
COMMENT ON COLUMN fer.image_result.outcome IS 'scored: it has faces with probabilities. Not scored: no_face, empty (0 bytes), unreadable (broken file), unsupported (no image format that is read), too_large, too_small, vanished (deleted after the listing), killed_worker (ended the scoring process). Tried again by the next run: changed (overwritten while it was read), fetch_failed';
COMMENT ON COLUMN fer.image_result.reason IS 'Why it was not scored, in a few words; empty where it was';
COMMENT ON COLUMN fer.image_result.emotion IS 'Happy or Sad: the larger of p_happy and p_sad of this row; null: not scored';
COMMENT ON COLUMN fer.image_result.p_happy IS 'Mean over its faces of the probability (0 to 1) of a happy expression';
COMMENT ON COLUMN fer.image_result.p_sad IS 'Mean over its faces of the probability (0 to 1) of a sad expression';
COMMENT ON COLUMN fer.image_result.p_neither IS 'Mean over its faces of the probability (0 to 1) of any other expression; the three sum to 1';
COMMENT ON COLUMN fer.image_result.is_uncertain IS 'True: every face of the image is uncertain; null: not scored';
COMMENT ON COLUMN fer.image_result.face_count IS 'Faces found in the image; 0 where it was not scored';
COMMENT ON COLUMN fer.image_result.width_px IS 'Width of the upright image, in pixels; null: not known';
COMMENT ON COLUMN fer.image_result.height_px IS 'Height of the upright image, in pixels; null: not known';
COMMENT ON COLUMN fer.image_result.size_bytes IS 'Size of the object, in bytes';
COMMENT ON COLUMN fer.image_result.run_id IS 'Run that wrote this row';
COMMENT ON COLUMN fer.image_result.scored_at IS 'When this row was written';

COMMENT ON TABLE fer.face_result IS 'One row per face of a scored image and model version. Says what expression was seen, never who. Partitioned by capture day: say which days you want.';
COMMENT ON COLUMN fer.face_result.facility_id IS 'Facility, see facility';
COMMENT ON COLUMN fer.face_result.capture_day IS 'Calendar date in the key';
COMMENT ON COLUMN fer.face_result.image_key IS 'S3 key of the image';
COMMENT ON COLUMN fer.face_result.member IS 'Empty: the object itself is the image';
COMMENT ON COLUMN fer.face_result.model_version IS 'Model version that decided this result, see model_version';
COMMENT ON COLUMN fer.face_result.face_index IS 'Number of the face in its image, from 0';
COMMENT ON COLUMN fer.face_result.box_x IS 'Left edge of the face in the upright image, in pixels; may lie outside it';
COMMENT ON COLUMN fer.face_result.box_y IS 'Upper edge of the face in the upright image, in pixels; may lie outside it';
COMMENT ON COLUMN fer.face_result.box_width IS 'Width of the face, in pixels';
COMMENT ON COLUMN fer.face_result.box_height IS 'Height of the face, in pixels';
COMMENT ON COLUMN fer.face_result.detector_score IS 'How sure the face detector is (0 to 1); null: a crop, no face was searched';
COMMENT ON COLUMN fer.face_result.p_happy IS 'Probability (0 to 1) of a happy expression';
COMMENT ON COLUMN fer.face_result.p_sad IS 'Probability (0 to 1) of a sad expression';
COMMENT ON COLUMN fer.face_result.p_neither IS 'Probability (0 to 1) of any other expression; the three sum to 1';
COMMENT ON COLUMN fer.face_result.emotion IS 'Happy or Sad: the larger of p_happy and p_sad';
COMMENT ON COLUMN fer.face_result.is_uncertain IS 'True: the larger of p_happy and p_sad is under the threshold of the model card; the face does not count in the happy share';

COMMENT ON TABLE fer.satisfaction_summary IS 'One row per facility, capture day and revision. Rows never change: late images, another model version or another target make a new revision. The newest one is in the view satisfaction_daily.';
COMMENT ON COLUMN fer.satisfaction_summary.facility_id IS 'Facility, see facility';
COMMENT ON COLUMN fer.satisfaction_summary.capture_day IS 'Calendar date in the keys of the images';
COMMENT ON COLUMN fer.satisfaction_summary.revision IS 'Number of this summary of the day, from 1';
COMMENT ON COLUMN fer.satisfaction_summary.model_version IS 'Model version whose results were counted, see model_version';
COMMENT ON COLUMN fer.satisfaction_summary.target_share IS 'Target (0 to 1) that the verdict was given against';
COMMENT ON COLUMN fer.satisfaction_summary.time_zone IS 'IANA time zone that decided when the day was over';
COMMENT ON COLUMN fer.satisfaction_summary.images IS 'Images known for the day: scored, not scored and pending together';
COMMENT ON COLUMN fer.satisfaction_summary.images_scored IS 'Images in which faces were scored';
COMMENT ON COLUMN fer.satisfaction_summary.images_pending IS 'Images without a final outcome: the next run tries them';
COMMENT ON COLUMN fer.satisfaction_summary.not_scored IS 'Images that will not be scored, counted by outcome, such as {"no_face": 3}. As rows: view not_scored_daily';
COMMENT ON COLUMN fer.satisfaction_summary.faces IS 'Faces in the scored images: happy, sad and uncertain together';
COMMENT ON COLUMN fer.satisfaction_summary.happy IS 'Faces that are Happy and not uncertain';
COMMENT ON COLUMN fer.satisfaction_summary.sad IS 'Faces that are Sad and not uncertain';
COMMENT ON COLUMN fer.satisfaction_summary.uncertain IS 'Faces that are uncertain and so not counted in the happy share';
COMMENT ON COLUMN fer.satisfaction_summary.neither IS 'Faces, uncertain or not, whose largest probability is p_neither';
COMMENT ON COLUMN fer.satisfaction_summary.happy_share IS 'happy / (happy + sad), 0 to 1; null: fewer than 30 faces that count. Never quote it without its interval';
COMMENT ON COLUMN fer.satisfaction_summary.happy_share_low IS 'Lower end of the interval of the happy share, 0 to 1; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_summary.happy_share_high IS 'Upper end of the interval of the happy share, 0 to 1; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_summary.interval_method IS 'How the interval was computed. wilson: score interval of Wilson (1927), which takes faces as independent';
COMMENT ON COLUMN fer.satisfaction_summary.confidence IS 'Confidence of the interval, such as 0.95';
COMMENT ON COLUMN fer.satisfaction_summary.uncertain_share IS 'uncertain / faces, 0 to 1; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_summary.neither_share IS 'neither / faces, 0 to 1; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_summary.verdict IS 'satisfied: the interval lies above the target. not satisfied: below it. inconclusive: the target lies inside. suppressed: fewer than 30 faces that count';
COMMENT ON COLUMN fer.satisfaction_summary.is_complete IS 'True: the images were listed after the local day was over, and each has a final outcome';
COMMENT ON COLUMN fer.satisfaction_summary.is_below_expected IS 'True: the facility was open, the day was over when it was listed, and there are fewer images than expected';
COMMENT ON COLUMN fer.satisfaction_summary.run_id IS 'Run that wrote this summary';
COMMENT ON COLUMN fer.satisfaction_summary.created_at IS 'When this summary was written';
