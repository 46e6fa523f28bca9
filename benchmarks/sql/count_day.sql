-- The counts of a day's summaries. Every image of the day has a result.
SELECT
    r.facility_id,
    r.capture_day,
    count(*) AS images,
    count(*) FILTER (WHERE r.outcome = 'scored') AS images_scored,
    0 AS images_pending,
    jsonb_strip_nulls(jsonb_build_object(
        'no_face', nullif(count(*) FILTER (WHERE r.outcome = 'no_face'), 0),
        'unreadable', nullif(count(*) FILTER (WHERE r.outcome = 'unreadable'), 0))) AS not_scored,
    CAST(sum(r.face_count) AS bigint) AS faces,
    any_value(f.happy) AS happy,
    any_value(f.sad) AS sad,
    any_value(f.uncertain) AS uncertain,
    any_value(f.neither) AS neither
FROM fer.image_result AS r
JOIN (
    SELECT
        facility_id,
        count(*) FILTER (WHERE emotion = 'Happy' AND NOT is_uncertain) AS happy,
        count(*) FILTER (WHERE emotion = 'Sad' AND NOT is_uncertain) AS sad,
        count(*) FILTER (WHERE is_uncertain) AS uncertain,
        count(*) FILTER (WHERE p_neither > greatest(p_happy, p_sad)) AS neither
    FROM fer.face_result
    WHERE capture_day = :day
    GROUP BY facility_id
) AS f USING (facility_id)
WHERE r.capture_day = :day
GROUP BY r.facility_id, r.capture_day
