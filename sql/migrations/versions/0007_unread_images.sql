-- Two outcomes of objects that S3 does not return: `archived` and `refused`. As with `missing`, the
-- next listing makes such an image work again, unless it tells that the object is still archived.

ALTER TABLE fer.image_result DROP CONSTRAINT image_result_outcome_check;
ALTER TABLE fer.image_result ADD CONSTRAINT image_result_outcome_check CHECK (outcome IN (
    'scored', 'no_face', 'empty', 'unreadable', 'unsupported', 'too_large', 'too_small',
    'missing', 'archived', 'refused', 'decoder_crashed', 'changed', 'fetch_failed'));

-- On the partitioned table, which adds it to every day.
ALTER TABLE fer.image ADD COLUMN is_archived boolean NOT NULL DEFAULT false;

-- The only definition of a final outcome. An ETag identifies a content, so a result stays valid as
-- long as the image has its ETag. Outcomes of objects that were not returned compare times as well:
-- a listing that contains such an object again sets listed_at, so that the image becomes work
-- again. All three times come from the database's clock. A test compares the outcomes with those of
-- fer_batch.records.
CREATE OR REPLACE FUNCTION fer.is_final(
    outcome text, result_etag text, image_etag text,
    scored_at timestamptz, listed_at timestamptz, rescore_before timestamptz
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    result_etag = image_etag
    AND outcome NOT IN ('changed', 'fetch_failed')
    AND (outcome NOT IN ('missing', 'archived', 'refused') OR scored_at >= listed_at)
    AND (rescore_before IS NULL OR scored_at >= rescore_before),
    false);

CREATE FUNCTION fer.hits_many(images bigint, all_images bigint)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN images > 0 AND (images >= all_images OR images >= 3 AND images > 0.2 * all_images);

COMMENT ON FUNCTION fer.hits_many IS
    'Whether an outcome hits so many of a day''s images that they have a common cause: more than 20 % and at least 3 of them, or all.';
COMMENT ON COLUMN fer.image.etag IS 'ETag of the object when it was last listed; identifies its content. If the server tells no ETag: size, time of the last change and a hash of the key';
COMMENT ON COLUMN fer.image.listed_at IS 'When this ETag was first listed; if a result had the outcome missing, archived or refused: when the object was listed again';
COMMENT ON COLUMN fer.image.is_archived IS 'True: by its last listing, S3 does not return the object before it is restored (storage class GLACIER or DEEP_ARCHIVE)';
COMMENT ON COLUMN fer.image_result.outcome IS 'scored: the image has faces with probabilities. Not scored: no_face, empty (0 bytes), unreadable (damaged file), unsupported (other file format), too_large, too_small, missing (deleted after the listing), archived (not returned before it is restored), refused (S3 refuses this object and returns others), decoder_crashed (its decoding ended the scoring process). Retried by the next run: changed (overwritten while it was read), fetch_failed';
COMMENT ON COLUMN fer.satisfaction_summary.is_complete IS 'True: the images were listed after the local day had ended, each has a final outcome, and at most 20 % are missing, archived or refused; of a longer period: each of its days is complete';
