-- error: the newest summary differs from a recount of its model version's results
-- closed by: same day
WITH this_run AS (
    SELECT began_at FROM fer.run WHERE run_id = :run_id
),
image AS (
    SELECT
        i.facility_id, i.capture_day, i.image_key, i.member, i.etag, i.captured_at_utc,
        d.model_version, r.outcome,
        r.run_id <> :run_id AND r.scored_at >= (SELECT began_at FROM this_run) AS is_of_other_run,
        fer.is_final(r.outcome, r.etag, i.etag, r.scored_at, i.listed_at, NULL) AS is_final
    FROM fer.image AS i
    JOIN fer.satisfaction_daily AS d
        ON d.facility_id = i.facility_id
        AND d.capture_day = i.capture_day
        -- Without these conditions the view would read all summaries.
        AND d.facility_id = ANY(:facility_ids)
        AND d.capture_day = ANY(:capture_days)
    LEFT JOIN fer.image_result AS r
        ON r.facility_id = i.facility_id
        AND r.capture_day = i.capture_day
        AND r.capture_day = ANY(:capture_days) -- otherwise the plan has all partitions
        AND r.image_key = i.image_key
        AND r.member = i.member
        AND r.model_version = d.model_version
    WHERE i.facility_id = ANY(:facility_ids) AND i.capture_day = ANY(:capture_days)
),
images AS (
    SELECT
        facility_id, capture_day,
        count(*) AS images,
        count(*) FILTER (WHERE is_final AND outcome = 'scored') AS images_scored,
        count(*) FILTER (WHERE NOT is_final) AS images_pending,
        bool_or(is_of_other_run) AS is_of_other_run
    FROM image
    GROUP BY facility_id, capture_day
),
original AS (
    -- Images with the same content count once.
    SELECT DISTINCT ON (facility_id, capture_day, etag) *
    FROM image
    WHERE is_final AND outcome = 'scored'
    ORDER BY facility_id, capture_day, etag, captured_at_utc, image_key, member
),
faces AS (
    SELECT
        facility_id, capture_day,
        count(*) AS faces,
        count(*) FILTER (WHERE f.called_class = 'happy') AS called_happy,
        count(*) FILTER (WHERE f.called_class = 'sad') AS called_sad,
        count(*) FILTER (WHERE f.called_class = 'neither') AS called_neither
    FROM fer.face_result AS f
    JOIN original USING (facility_id, capture_day, image_key, member, model_version)
    WHERE f.facility_id = ANY(:facility_ids)
        AND f.capture_day = ANY(:capture_days)
    GROUP BY facility_id, capture_day
),
compared AS (
    SELECT
        d.facility_id,
        d.capture_day,
        d.method = 'suppressed' AS is_suppressed,
        ARRAY[d.images, d.images_scored, d.images_pending, d.faces_scored] AS summary,
        ARRAY[
            coalesce(i.images, 0) + fer.erased_images(d.facility_id, d.capture_day),
            coalesce(i.images_scored, 0), coalesce(i.images_pending, 0),
            -- The method wilson counted pictures with the same content as often as they came.
            CASE d.method WHEN 'wilson' THEN d.faces_scored ELSE coalesce(f.faces, 0) END
        ] AS recount,
        -- Compared but not printed, because counts by class are confidential. A published figure
        -- stays if few faces or sessions change, or while more images may come; how many sessions
        -- changed is not counted here. A summary of the method wilson has no such counts.
        coalesce(CASE d.method
            WHEN 'suppressed' THEN change.faces > 0
            ELSE change.faces >= 30
                AND d.faces = d.faces_scored
                AND d.session_rule <> 'gap'
                AND d.is_complete
        END, false) AS has_other_split
    FROM fer.satisfaction_daily AS newest
    JOIN fer.satisfaction_summary AS d
        ON d.facility_id = newest.facility_id
        AND d.capture_day = newest.capture_day
        AND d.revision = newest.revision
        AND d.period = 'day'
    LEFT JOIN fer.batch AS b
        ON b.facility_id = d.facility_id AND b.capture_day = d.capture_day
    LEFT JOIN images AS i
        ON i.facility_id = d.facility_id AND i.capture_day = d.capture_day
    LEFT JOIN faces AS f
        ON f.facility_id = d.facility_id AND f.capture_day = d.capture_day
    CROSS JOIN LATERAL (
        SELECT
            abs(d.called_happy - coalesce(f.called_happy, 0))
            + abs(d.called_sad - coalesce(f.called_sad, 0))
            + abs(d.called_neither - coalesce(f.called_neither, 0)) AS faces
    ) AS change
    WHERE d.facility_id = ANY(:facility_ids) AND d.capture_day = ANY(:capture_days)
        AND newest.facility_id = ANY(:facility_ids) AND newest.capture_day = ANY(:capture_days)
        AND NOT EXISTS (SELECT FROM fer.retention WHERE before_day > d.capture_day)
        -- Rows that another run has changed since this one began may be newer than the summary.
        -- That run summarizes and checks them itself.
        AND i.is_of_other_run IS NOT TRUE
        AND (b.run_id <> :run_id AND b.listed_at >= (SELECT began_at FROM this_run)) IS NOT TRUE
)
SELECT
    facility_id,
    capture_day,
    CASE
        -- Counts of faces of a suppressed day are confidential.
        WHEN is_suppressed THEN format('images, pending: %s %s in the summary, %s %s counted%s',
            summary[1], summary[3], recount[1], recount[3],
            CASE WHEN summary[2] <> recount[2] OR summary[4] <> recount[4] OR has_other_split
                THEN '; the faces differ' END)
        ELSE format('images, scored, pending, faces: %s in the summary, %s counted%s',
            array_to_string(summary, ' '), array_to_string(recount, ' '),
            CASE WHEN has_other_split THEN '; the called classes differ' END)
    END AS finding
FROM compared
WHERE summary <> recount OR has_other_split
