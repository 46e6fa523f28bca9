-- Gives two outcomes and two columns standard names, and rewrites comments in plain English. An
-- object that was deleted after its listing has the outcome `missing` (was `vanished`); an image
-- whose decoding ended the scoring process, `decoder_crashed` (was `killed_worker`).

ALTER TABLE fer.image_result DROP CONSTRAINT image_result_outcome_check;
UPDATE fer.image_result
SET outcome = CASE outcome WHEN 'vanished' THEN 'missing' ELSE 'decoder_crashed' END
WHERE outcome IN ('vanished', 'killed_worker');
ALTER TABLE fer.image_result ADD CONSTRAINT image_result_outcome_check CHECK (outcome IN (
    'scored', 'no_face', 'empty', 'unreadable', 'unsupported', 'too_large', 'too_small',
    'missing', 'decoder_crashed', 'changed', 'fetch_failed'));

-- Summaries keep their counts under the new names, so that no day gets a new revision.
UPDATE fer.satisfaction_summary
SET not_scored = (
    SELECT jsonb_object_agg(
        CASE counted.outcome
            WHEN 'vanished' THEN 'missing'
            WHEN 'killed_worker' THEN 'decoder_crashed'
            ELSE counted.outcome
        END, counted.images)
    FROM jsonb_each(not_scored) AS counted (outcome, images))
WHERE not_scored ?| ARRAY['vanished', 'killed_worker'];

-- The only definition of a final outcome. An ETag identifies a content, so a result stays valid as
-- long as the image has its ETag. Only `missing` compares times as well: a listing that contains
-- such an object again sets listed_at, so that the image becomes work again. All three times come
-- from the database's clock. A test compares the outcomes with those of fer_batch.records.
CREATE OR REPLACE FUNCTION fer.is_final(
    outcome text, result_etag text, image_etag text,
    scored_at timestamptz, listed_at timestamptz, rescore_before timestamptz
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    result_etag = image_etag
    AND outcome NOT IN ('changed', 'fetch_failed')
    AND (outcome <> 'missing' OR scored_at >= listed_at)
    AND (rescore_before IS NULL OR scored_at >= rescore_before),
    false);

ALTER TABLE fer.cnn RENAME COLUMN artefact TO artifact;
ALTER TABLE fer.cnn RENAME COLUMN artefact_sha256 TO artifact_sha256;
ALTER TABLE fer.cnn RENAME CONSTRAINT cnn_artefact_is_its_hash TO cnn_artifact_matches_hash;
ALTER TABLE fer.cnn RENAME CONSTRAINT cnn_card_is_of_artefact TO cnn_card_names_artifact;


COMMENT ON FUNCTION fer.is_final IS
    'Whether the result of an image is final, so that the next run does not retry the image. rescore_before: results older than this do not count; null: no limit.';
COMMENT ON FUNCTION fer.unfinished_image IS
    'The images of a facility and capture day that have no final result for this model version. rescore_before: results older than this do not count; null: no limit. from_key, to_key: only keys between these, both included.';
COMMENT ON FUNCTION fer.ensure_partitions IS
    'Creates the missing partitions of image, image_result and face_result for these capture days; returns how many it created. Safe in concurrent sessions.';
COMMENT ON FUNCTION fer.refuse_change IS
    'Trigger function of tables whose rows must not change: rejects the statement with an error.';
COMMENT ON FUNCTION fer.is_day_deleted IS
    'Whether the rows per image of a facility''s capture day were permanently deleted, by retention or by erasure. Such a day is not listed again.';
COMMENT ON FUNCTION fer.erased_images IS
    'Number of images of a facility''s capture day that were erased.';

COMMENT ON TABLE fer.schema_version IS 'Migration of this schema. One row, written by fer-batch db upgrade.';
COMMENT ON COLUMN fer.schema_version.version_num IS 'Number of the newest migration that was applied';

COMMENT ON TABLE fer.facility IS 'One row per shop, center or branch: the facility registry as the last run read it, with the permission on record.';
COMMENT ON COLUMN fer.facility.facility_id IS 'Short name of the facility, as in its keys: lowercase letters, digits, - and _';
COMMENT ON COLUMN fer.facility.name IS 'Display name';
COMMENT ON COLUMN fer.facility.time_zone IS 'IANA time zone, such as Europe/Berlin; determines when a capture day ends';
COMMENT ON COLUMN fer.facility.image_kind IS 'crops: each image is one face. frames: camera pictures in which faces are detected';
COMMENT ON COLUMN fer.facility.key_template IS 'Beginning of the keys of a capture day, such as {facility_id}/{capture_day:%Y-%m-%d}/';
COMMENT ON COLUMN fer.facility.target_share IS 'Target of the happy share, 0 to 1; verdicts compare the interval with it';
COMMENT ON COLUMN fer.facility.expected_images_min IS 'Minimum number of images of an open day; fewer are reported as a finding';
COMMENT ON COLUMN fer.facility.permission_purpose IS 'Purpose of the processing; null: no permission is recorded';
COMMENT ON COLUMN fer.facility.permission_valid_until IS 'Last day of the permission. After it, or if it is null, no image is listed or read';
COMMENT ON COLUMN fer.facility.is_in_registry IS 'False: removed from the registry; its history is kept';

COMMENT ON TABLE fer.model_version IS 'One row per model version: everything that determines a result, identified by one hash.';
COMMENT ON COLUMN fer.model_version.manifest IS 'Everything that determines a result: CNN, face detector, cropping, limits, threshold';
COMMENT ON COLUMN fer.model_version.card IS 'Model card of the CNN: training, data, and measured accuracy';

COMMENT ON TABLE fer.batch IS 'One row per facility and capture day that a run has handled: the status of its listing.';
COMMENT ON COLUMN fer.batch.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.batch.status IS 'Result of the last attempt. listed: all images of the day are known. not_ready: the upload is not finished. no_permission: no image was listed or read. failed: S3 could not be listed';
COMMENT ON COLUMN fer.batch.reason IS 'Why the last attempt did not list the images; empty if it did';
COMMENT ON COLUMN fer.batch.images_listed IS 'Number of images in the last successful listing; null: no listing has succeeded';
COMMENT ON COLUMN fer.batch.bytes_listed IS 'Sum of their sizes, in bytes; null: no listing has succeeded';
COMMENT ON COLUMN fer.batch.listed_at IS 'When the last successful listing began; null: no listing has succeeded';

COMMENT ON TABLE fer.run IS 'One row per run: when it began, and its model version. A run that rescores, and its retries, ignore results older than began_at.';
COMMENT ON COLUMN fer.run.began_at IS 'When the run was first planned';
COMMENT ON COLUMN fer.run.model_version IS 'Model version of the whole run, see table model_version; null: none was recorded';

COMMENT ON TABLE fer.image IS 'One row per listed image. Rows are kept when the object is deleted in S3. Partitioned by capture day: filter by it.';
COMMENT ON COLUMN fer.image.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.image.member IS 'Empty: the object itself is the image. Reserved for archives of many images';
COMMENT ON COLUMN fer.image.etag IS 'ETag of the object when it was last listed; identifies its content';
COMMENT ON COLUMN fer.image.first_seen_at IS 'When this key was first listed';
COMMENT ON COLUMN fer.image.listed_at IS 'When this ETag was first listed; if a result had the outcome missing: when the object was listed again';

COMMENT ON TABLE fer.image_result IS 'One row per image and model version: the outcome of the image. Partitioned by capture day: filter by it.';
COMMENT ON COLUMN fer.image_result.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.image_result.model_version IS 'Model version that produced this result, see table model_version';
COMMENT ON COLUMN fer.image_result.etag IS 'ETag of the content that was read. If it differs from that in image, the result belongs to an older content and does not count';
COMMENT ON COLUMN fer.image_result.outcome IS 'scored: the image has faces with probabilities. Not scored: no_face, empty (0 bytes), unreadable (damaged file), unsupported (other file format), too_large, too_small, missing (deleted after the listing), decoder_crashed (its decoding ended the scoring process). Retried by the next run: changed (overwritten while it was read), fetch_failed';
COMMENT ON COLUMN fer.image_result.reason IS 'Why the image was not scored, in a few words; empty if it was';
COMMENT ON COLUMN fer.image_result.face_count IS 'Number of faces in the image; 0 if it was not scored';

COMMENT ON TABLE fer.face_result IS 'One row per face of a scored image and model version: its expression, never its identity. Partitioned by capture day: filter by it.';
COMMENT ON COLUMN fer.face_result.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.face_result.model_version IS 'Model version that produced this result, see table model_version';
COMMENT ON COLUMN fer.face_result.detector_score IS 'Confidence of the face detector, 0 to 1; null: the image is a crop and no detector ran';
COMMENT ON COLUMN fer.face_result.is_uncertain IS 'True: the larger of p_happy and p_sad is below the threshold of the model card; the face is not counted in the happy share';

COMMENT ON TABLE fer.cnn IS 'One row per CNN that was registered or used for scoring, with its ONNX file. Rows are never changed.';
COMMENT ON COLUMN fer.cnn.cnn_sha256 IS 'SHA-256 that identifies the CNN; it covers the artifact and the threshold of is_uncertain';
COMMENT ON COLUMN fer.cnn.artifact_sha256 IS 'SHA-256 of the artifact; verified before it is opened';
COMMENT ON COLUMN fer.cnn.card IS 'Model card: name, recipe, data, metrics';
COMMENT ON COLUMN fer.cnn.artifact IS 'The ONNX file. Analysts cannot read it';
COMMENT ON COLUMN fer.cnn.registered_at IS 'When the CNN was registered';

COMMENT ON TABLE fer.cnn_promotion IS 'History of the active CNN; the newest row names it. No row: the CNN that ships with fer-batch. The setting FER_MODEL_CARD takes precedence. Rows are never changed or deleted.';
COMMENT ON COLUMN fer.cnn_promotion.promotion_id IS 'Number of the promotion or rollback; the newest has the largest';
COMMENT ON COLUMN fer.cnn_promotion.cnn_sha256 IS 'CNN that is active from then on, see table cnn';
COMMENT ON COLUMN fer.cnn_promotion.is_rollback IS 'True: the previous promotion was rolled back. False: this CNN was promoted';
COMMENT ON COLUMN fer.cnn_promotion.promoted_by IS 'Who made the change, as given to the command';
COMMENT ON COLUMN fer.cnn_promotion.why IS 'Reason for the change, as given to the command';
COMMENT ON COLUMN fer.cnn_promotion.promoted_at IS 'When the change was made';

COMMENT ON TABLE fer.satisfaction_summary IS 'One row per facility, capture day and revision. Rows are never changed: late images, another model version or another target create a new revision. The view satisfaction_daily shows the newest one.';
COMMENT ON COLUMN fer.satisfaction_summary.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.satisfaction_summary.model_version IS 'Model version whose results were counted, see table model_version';
COMMENT ON COLUMN fer.satisfaction_summary.target_share IS 'Target of the happy share, 0 to 1, that the verdict compares with';
COMMENT ON COLUMN fer.satisfaction_summary.time_zone IS 'IANA time zone that determined when the day ended';
COMMENT ON COLUMN fer.satisfaction_summary.images IS 'All known images of the day: scored, not scored and pending';
COMMENT ON COLUMN fer.satisfaction_summary.images_pending IS 'Images without a final outcome; the next run retries them';
COMMENT ON COLUMN fer.satisfaction_summary.not_scored IS 'Images with a final outcome other than scored, counted by outcome, such as {"no_face": 3}; erased: deleted later on request. As rows: view not_scored_daily';
COMMENT ON COLUMN fer.satisfaction_summary.faces IS 'Faces in the scored images: happy + sad + uncertain';
COMMENT ON COLUMN fer.satisfaction_summary.uncertain IS 'Faces that are uncertain and therefore not counted in the happy share';
COMMENT ON COLUMN fer.satisfaction_summary.happy_share IS 'happy / (happy + sad), 0 to 1; null: suppressed. Never quote it without its interval';
COMMENT ON COLUMN fer.satisfaction_summary.interval_method IS 'Method of the interval. wilson: score interval of Wilson (1927), which assumes that faces are independent';
COMMENT ON COLUMN fer.satisfaction_summary.confidence IS 'Confidence level of the interval, such as 0.95';
COMMENT ON COLUMN fer.satisfaction_summary.verdict IS 'satisfied: the interval is above the target. not satisfied: the interval is below it. inconclusive: the target is inside the interval. suppressed: fewer than 30 happy and sad faces';
COMMENT ON COLUMN fer.satisfaction_summary.is_complete IS 'True: the images were listed after the local day had ended, and each has a final outcome';
COMMENT ON COLUMN fer.satisfaction_summary.is_below_expected IS 'True: the facility was open, the day had ended when it was listed, and there are fewer images than expected';

COMMENT ON TABLE fer.retention IS 'History of retention. The rows per image of all days before the newest before_day are permanently deleted, and such days are not listed again. Rows are never changed or deleted.';
COMMENT ON COLUMN fer.retention.set_by IS 'Database user who ran the retention';
COMMENT ON COLUMN fer.retention.set_at IS 'When the retention began';

COMMENT ON TABLE fer.deletion IS 'Record of permanent deletions without the deleted contents: days by retention, facility days and images by erasure. Erased images are not read again. Rows are never changed or deleted.';
COMMENT ON COLUMN fer.deletion.deletion_id IS 'Number of the deletion; the newest has the largest';
COMMENT ON COLUMN fer.deletion.kind IS 'retention: an expired day of all facilities was dropped. day: a day of one facility was erased. image: one image was erased';
COMMENT ON COLUMN fer.deletion.facility_id IS 'Facility, see table facility; null: retention, which covers all facilities';
COMMENT ON COLUMN fer.deletion.key_sha256 IS 'SHA-256 of the key of an erased image, so that listings can skip it; null: a whole day was deleted';
COMMENT ON COLUMN fer.deletion.images IS 'Number of deleted rows of image';
COMMENT ON COLUMN fer.deletion.faces IS 'Number of deleted rows of face_result, for all model versions';
COMMENT ON COLUMN fer.deletion.deleted_by IS 'Database user who deleted the rows';
COMMENT ON COLUMN fer.deletion.deleted_at IS 'When the rows were deleted';
