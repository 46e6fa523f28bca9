-- name: count_batch
-- All counts of a summary in one statement, so that they belong to one moment. A batch is counted
-- if it was ever listed or its last listing failed. Erased images count as images that were not
-- scored. A day that retention has dropped is not counted again.
WITH image AS (
    SELECT
        i.image_key, i.member, r.outcome,
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
face AS (
    SELECT
        count(*) AS faces,
        count(*) FILTER (WHERE f.emotion = 'Happy' AND NOT f.is_uncertain) AS happy,
        count(*) FILTER (WHERE f.emotion = 'Sad' AND NOT f.is_uncertain) AS sad,
        count(*) FILTER (WHERE f.is_uncertain) AS uncertain,
        count(*) FILTER (WHERE f.p_neither > greatest(f.p_happy, f.p_sad)) AS neither
    FROM fer.face_result AS f
    JOIN image USING (image_key, member)
    WHERE f.facility_id = :facility_id
        AND f.capture_day = :capture_day
        AND f.model_version = :model_version
        AND image.is_final
        AND image.outcome = 'scored'
)
SELECT
    batch.facility_id,
    batch.capture_day,
    batch.listed_at,
    (SELECT count(*) FROM image) + erased.images AS images,
    (SELECT count(*) FROM image WHERE is_final AND outcome = 'scored') AS images_scored,
    (SELECT count(*) FROM image WHERE NOT is_final) AS images_pending,
    (SELECT coalesce(jsonb_object_agg(outcome, images), '{}') FROM outcome
        WHERE outcome <> 'scored')
        || CASE WHEN erased.images > 0 THEN jsonb_build_object('erased', erased.images)
            ELSE '{}' END AS not_scored,
    face.*
FROM fer.batch AS batch
CROSS JOIN face
CROSS JOIN fer.erased_images(:facility_id, :capture_day) AS erased (images)
WHERE batch.facility_id = :facility_id
    AND batch.capture_day = :capture_day
    AND (batch.listed_at IS NOT NULL OR batch.status = 'failed')
    AND NOT EXISTS (SELECT FROM fer.retention WHERE before_day > :capture_day);

-- name: has_later_run
-- Whether a run that began later than :run_id has written a summary of the batch for this model
-- version.
SELECT EXISTS (
    SELECT
    FROM fer.satisfaction_summary AS summary
    JOIN fer.run AS later ON later.run_id = summary.run_id
    JOIN fer.run AS this_run
        ON this_run.run_id = :run_id AND this_run.began_at < later.began_at
    WHERE summary.facility_id = :facility_id
        AND summary.capture_day = :capture_day
        AND summary.model_version = :model_version);

-- name: load_daily
-- The newest summaries of some facilities from the first to the last day, both included.
SELECT *
FROM fer.satisfaction_daily
WHERE facility_id = ANY(:facility_ids) AND capture_day BETWEEN :first_day AND :last_day
ORDER BY capture_day, facility_name, facility_id;
