-- name: count_batch
-- All counts of a summary in one statement, so that they belong to one moment. A batch is counted
-- if it was ever listed or its last listing failed. Erased images count as images that were not
-- scored. A day that retention has dropped is not counted again.
--
-- Faces are counted by cluster, because the faces of one visit are alike. Sessions: the images of a
-- camera in order of time; a session ends at a gap over 60 s or after 5 minutes. Blocks: equal
-- numbers of images in order of time, over all cameras. Without the times of all images there are
-- no sessions and half as many blocks, in key order. For each clustering the sums over its clusters
-- of k and of k kᵀ are enough for the estimator; k are the faces called happy, sad and neither.
-- Images with the same ETag have the same content: their faces count once, in the first of them.
WITH image AS (
    SELECT
        i.image_key, i.member, i.etag, i.camera, i.captured_at_utc, r.outcome,
        fer.is_final(r.outcome, r.etag, i.etag, r.scored_at, i.listed_at, NULL) AS is_final
    FROM fer.image AS i
    LEFT JOIN fer.image_result AS r
        ON r.facility_id = i.facility_id
        AND r.capture_day = i.capture_day
        AND r.image_key = i.image_key
        AND r.member = i.member
        AND r.model_version = :model_version
    WHERE i.facility_id = :facility_id AND i.capture_day = :capture_day
),
outcome AS (
    SELECT outcome, count(*) AS images
    FROM image
    WHERE is_final
    GROUP BY outcome
),
original AS (
    SELECT DISTINCT ON (etag) *
    FROM image
    WHERE is_final AND outcome = 'scored'
    ORDER BY etag, captured_at_utc, image_key, member
),
scored AS (
    SELECT
        image.image_key, image.member, image.camera, image.captured_at_utc,
        count(*) FILTER (WHERE f.called_class = 'happy') AS happy,
        count(*) FILTER (WHERE f.called_class = 'sad') AS sad,
        count(*) FILTER (WHERE f.called_class = 'neither') AS neither
    FROM fer.face_result AS f
    JOIN original AS image USING (image_key, member)
    WHERE f.facility_id = :facility_id
        AND f.capture_day = :capture_day
        AND f.model_version = :model_version
    GROUP BY image.image_key, image.member, image.camera, image.captured_at_utc
),
face AS (
    SELECT
        coalesce(sum(happy), 0)::bigint AS called_happy,
        coalesce(sum(sad), 0)::bigint AS called_sad,
        coalesce(sum(neither), 0)::bigint AS called_neither,
        coalesce(bool_and(captured_at_utc IS NOT NULL), false) AS is_timed
    FROM scored
),
gap AS (
    SELECT
        *,
        coalesce(captured_at_utc - lag(captured_at_utc) OVER camera > interval '60 seconds', true)
            AS is_after_gap
    FROM scored
    WHERE (SELECT is_timed FROM face)
    WINDOW camera AS (PARTITION BY camera ORDER BY captured_at_utc, image_key, member)
),
stay AS (
    SELECT
        *,
        count(*) FILTER (WHERE is_after_gap) OVER (
            PARTITION BY camera ORDER BY captured_at_utc, image_key, member) AS stay
    FROM gap
),
part AS (
    SELECT
        *,
        floor(extract(EPOCH FROM captured_at_utc
            - min(captured_at_utc) OVER (PARTITION BY camera, stay)) / 300) AS part
    FROM stay
),
hour AS (
    SELECT
        hour,
        jsonb_build_array(
            sum(happy), sum(sad), sum(neither), count(DISTINCT row(camera, stay, part))) AS counts
    FROM (
        SELECT
            *,
            extract(HOUR FROM captured_at_utc AT TIME ZONE :time_zone)::integer AS hour
        FROM part
    ) AS timed
    GROUP BY hour
),
camera AS (
    SELECT camera, count(*) AS images
    FROM image
    WHERE camera IS NOT NULL
    GROUP BY camera
),
block AS (
    SELECT
        *,
        ntile((SELECT CASE WHEN is_timed THEN 20 ELSE 10 END FROM face)) OVER (
            ORDER BY CASE WHEN (SELECT is_timed FROM face) THEN captured_at_utc END,
                image_key, member) AS block
    FROM scored
),
cluster AS (
    SELECT
        'gap' AS rule, sum(happy) AS happy, sum(sad) AS sad, sum(neither) AS neither
    FROM part
    GROUP BY camera, stay, part
    UNION ALL
    SELECT 'blocks', sum(happy), sum(sad), sum(neither)
    FROM block
    GROUP BY block
),
clustering AS (
    SELECT
        rule,
        jsonb_build_object(
            'clusters', count(*),
            'counts', jsonb_build_array(sum(happy), sum(sad), sum(neither)),
            'products', jsonb_build_array(
                jsonb_build_array(sum(happy * happy), sum(happy * sad), sum(happy * neither)),
                jsonb_build_array(sum(happy * sad), sum(sad * sad), sum(sad * neither)),
                jsonb_build_array(sum(happy * neither), sum(sad * neither), sum(neither * neither))
            )) AS sums
    FROM cluster
    GROUP BY rule
)
SELECT
    batch.facility_id,
    batch.capture_day,
    batch.listed_at,
    (SELECT count(*) FROM image) + erased.images AS images,
    (SELECT count(*) FROM image WHERE is_final AND outcome = 'scored') AS images_scored,
    (SELECT count(*) FROM image WHERE NOT is_final) AS images_pending,
    (SELECT fer.hits_many(
        count(*) FILTER (WHERE is_final AND outcome IN ('missing', 'archived', 'refused')), count(*)
    ) FROM image) AS is_largely_unread,
    -- The listing found none of the stored images. Objects may be deleted from the bucket once they
    -- are scored; the prefix is right if the same run found images of another day.
    batch.status = 'listed'
    AND batch.images_listed = 0
    AND EXISTS (SELECT FROM image)
    AND NOT EXISTS (
        SELECT FROM fer.batch AS other
        WHERE other.facility_id = batch.facility_id
            AND other.listed_at = batch.listed_at
            AND other.images_listed > 0
    ) AS is_unlisted,
    (SELECT coalesce(jsonb_object_agg(outcome, images), '{}') FROM outcome
        WHERE outcome <> 'scored')
        || CASE WHEN erased.images > 0 THEN jsonb_build_object('erased', erased.images)
            ELSE '{}' END AS not_scored,
    face.called_happy + face.called_sad + face.called_neither AS faces,
    face.called_happy,
    face.called_sad,
    face.called_neither,
    (SELECT coalesce(jsonb_object_agg(rule, sums), '{}') FROM clustering) AS totals,
    (SELECT jsonb_object_agg(hour, counts) FROM hour) AS hours,
    (SELECT jsonb_object_agg(camera, images) FROM camera) AS cameras
FROM fer.batch AS batch
CROSS JOIN face
CROSS JOIN fer.erased_images(:facility_id, :capture_day) AS erased (images)
WHERE batch.facility_id = :facility_id
    AND batch.capture_day = :capture_day
    AND (batch.listed_at IS NOT NULL OR batch.status = 'failed')
    AND NOT EXISTS (SELECT FROM fer.retention WHERE before_day > :capture_day);

-- name: has_later_run
-- Whether a run that began later than :run_id has written a summary of the period for this model
-- version.
SELECT EXISTS (
    SELECT
    FROM fer.satisfaction_summary AS summary
    JOIN fer.run AS later ON later.run_id = summary.run_id
    JOIN fer.run AS this_run
        ON this_run.run_id = :run_id AND this_run.began_at < later.began_at
    WHERE summary.facility_id = :facility_id
        AND summary.capture_day = :capture_day
        AND summary.period = :period
        AND summary.model_version = :model_version);

-- name: load_daily
-- The newest summaries of some facilities from the first to the last day, both included, and
-- whether the facility was closed: no image on one of its closed weekdays. The columns are those of
-- the view satisfaction_daily, which hides counts of days without a published rate.
SELECT
    daily.facility_id, facility.name AS facility_name, daily.capture_day, daily.verdict,
    daily.happy_rate, daily.happy_rate_low, daily.happy_rate_high, daily.target_rate,
    daily.sad_rate, daily.sad_rate_low, daily.sad_rate_high, daily.neither_rate,
    daily.called_happy_rate, daily.called_happy_rate_low, daily.called_happy_rate_high,
    daily.called_sad_rate, daily.called_sad_rate_low, daily.called_sad_rate_high, daily.method,
    daily.is_complete, daily.is_below_expected, daily.images, daily.images_scored,
    daily.images_pending, daily.not_scored, daily.faces_scored, daily.faces, daily.sessions,
    daily.sessions_effective, daily.faces_effective, daily.design_effect, daily.session_rule,
    daily.benchmark_weight, daily.faces_needed, daily.confidence, daily.time_zone,
    daily.model_version, daily.revision, daily.run_id, daily.created_at, daily.audit_id,
    daily.audit_labels, daily.reason,
    facility.publish_period,
    daily.images = 0
    AND to_char(daily.capture_day, 'dy') = ANY(facility.closed_weekdays) AS is_closed
FROM (
    SELECT DISTINCT ON (facility_id, capture_day) *
    FROM fer.satisfaction_summary
    WHERE period = 'day'
        AND facility_id = ANY(:facility_ids)
        AND capture_day BETWEEN :first_day AND :last_day
    ORDER BY facility_id, capture_day, revision DESC
) AS daily
JOIN fer.facility USING (facility_id)
ORDER BY daily.capture_day, facility.name, daily.facility_id;

-- name: load_recent_rates
-- The newest corrected happy rate of some facilities, of the longest period that ended with it.
SELECT DISTINCT ON (facility_id)
    facility_id, period, first_day, capture_day, happy_rate, happy_rate_low, happy_rate_high
FROM fer.satisfaction_summary
WHERE facility_id = ANY(:facility_ids)
    AND method IN ('benchmark', 'local')
    AND capture_day < (now() AT TIME ZONE time_zone)::date
ORDER BY facility_id, capture_day DESC, first_day, revision DESC;
