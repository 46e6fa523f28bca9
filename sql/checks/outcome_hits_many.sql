-- error: many images of a day have the same outcome, which has a common cause
-- closed by: later images
SELECT
    facility_id,
    capture_day,
    outcome AS subject,
    format('%s of %s images are %s: %s', images, all_images, outcome, cause) AS finding,
    reason AS example
FROM (
    SELECT
        facility_id,
        capture_day,
        outcome,
        count(*) AS images,
        mode() WITHIN GROUP (ORDER BY reason) AS reason,
        (sum(count(*)) OVER (PARTITION BY facility_id, capture_day))::bigint AS all_images
    FROM fer.image_outcome(:facility_ids, :capture_days, :model_version)
    GROUP BY facility_id, capture_day, outcome
) AS counted
JOIN (VALUES
    ('missing', 'another job or a lifecycle rule deletes them before they are read'),
    ('archived', 'restore them, or exclude them'),
    ('refused', 'allow reading them (policy, owner, encryption key), or exclude them'),
    ('changed', 'the upload overwrites them while the day is scored, or their ETags are unstable'),
    ('fetch_failed', 'S3 or the network fails: look at the server''s log'),
    ('empty', 'the upload creates files without content'),
    ('unreadable', 'the upload is cut off, or the camera writes damaged files'),
    ('unsupported', 'let the camera write JPEG, PNG or WebP, or exclude other files'),
    ('too_large', 'raise FER_MAX_IMAGE_BYTES or FER_MAX_IMAGE_PIXELS'),
    ('too_small', 'exclude thumbnails, or lower FER_MIN_IMAGE_PX'),
    ('decoder_crashed', 'look at the files and at the memory of the scoring processes')
) AS known (outcome, cause) USING (outcome)
WHERE fer.hits_many(images, all_images)
    -- A sidecar or a thumbnail beside each photograph is found by checks of its own.
    AND (outcome NOT IN ('unsupported', 'too_small') OR images > 0.5 * all_images)
