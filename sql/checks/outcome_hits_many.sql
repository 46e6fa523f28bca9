-- error: many images of a day have the same outcome, which has a common cause
SELECT
    facility_id,
    capture_day,
    format('%s of %s images are %s%s: %s', images, all_images, outcome,
        ' (' || nullif(reason, '') || ')', cause) AS finding
FROM (
    SELECT
        i.facility_id,
        i.capture_day,
        r.outcome,
        count(*) AS images,
        mode() WITHIN GROUP (ORDER BY r.reason) AS reason,
        (sum(count(*)) OVER (PARTITION BY i.facility_id, i.capture_day))::bigint AS all_images
    FROM fer.image AS i
    LEFT JOIN fer.image_result AS r
        ON r.facility_id = i.facility_id
        AND r.capture_day = i.capture_day
        AND r.capture_day = ANY(:capture_days) -- otherwise the plan has all partitions
        AND r.image_key = i.image_key
        AND r.member = i.member
        AND r.etag = i.etag
        AND r.model_version = :model_version
    WHERE i.facility_id = ANY(:facility_ids) AND i.capture_day = ANY(:capture_days)
    GROUP BY i.facility_id, i.capture_day, r.outcome
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
