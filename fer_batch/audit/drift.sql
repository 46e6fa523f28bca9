-- name: load_figure
-- The images of some published days, and how many independent faces and sessions their figures rest
-- on. Of a facility that publishes by week, the figures are those of the weeks.
WITH figure AS (
    SELECT faces_effective, coalesce(sessions_effective, faces_effective) AS sessions_effective
    FROM fer.satisfaction_daily
    WHERE facility_id = :facility_id
        AND capture_day = ANY(:days)
        AND model_version = :model_version
        AND method <> 'suppressed'
    UNION ALL
    SELECT faces_effective, coalesce(sessions_effective, faces_effective)
    FROM fer.satisfaction_period AS week
    WHERE facility_id = :facility_id
        AND period = 'week'
        AND model_version = :model_version
        AND method <> 'suppressed'
        AND EXISTS (
            SELECT FROM fer.satisfaction_daily AS day
            WHERE day.facility_id = :facility_id
                AND day.capture_day = ANY(:days)
                AND day.capture_day BETWEEN week.first_day AND week.last_day
                AND day.method = 'suppressed')
)
SELECT
    (SELECT sum(faces_effective) FROM figure) AS faces_effective,
    (SELECT sum(sessions_effective) FROM figure) AS sessions_effective,
    sum(images - coalesce((not_scored ->> 'erased')::bigint, 0))::bigint AS images,
    (
        SELECT coalesce(jsonb_object_agg(outcome, images), '{}')
        FROM (
            SELECT outcome, sum(images)::bigint AS images
            FROM fer.not_scored_daily
            WHERE facility_id = :facility_id AND capture_day = ANY(:days) AND outcome <> 'erased'
            GROUP BY outcome
        ) AS counted
    ) AS not_scored
FROM fer.satisfaction_daily
WHERE facility_id = :facility_id AND capture_day = ANY(:days);

-- name: count_bins
-- A histogram of each property of the faces of some days. As in a summary, images with the same
-- content count once. A value that many faces have, such as the size of all crops, gets a bin of
-- its own: an edge at the value and one just above it.
WITH face AS (
    SELECT
        property.name, property.value, f.called_class
    FROM fer.original_image(:facility_id, :days, :model_version) AS original
    JOIN fer.face_result AS f USING (capture_day, image_key, member)
    CROSS JOIN LATERAL (VALUES
        ('p_happy', f.p_happy::double precision), ('p_sad', f.p_sad), ('p_neither', f.p_neither),
        ('face_px', least(f.box_width, f.box_height))
    ) AS property (name, value)
    WHERE f.facility_id = :facility_id
        AND f.capture_day = ANY(:days)
        AND f.model_version = :model_version
),
decile AS (
    SELECT
        name,
        unnest(percentile_disc(ARRAY[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
            WITHIN GROUP (ORDER BY value)) AS value
    FROM face
    GROUP BY name
),
edge AS (
    SELECT name, array_agg(DISTINCT value ORDER BY value) AS edges
    FROM (
        SELECT name, value FROM decile
        UNION ALL
        SELECT name, value + 1e-6 FROM decile GROUP BY name, value HAVING count(*) > 1
    ) AS each
    GROUP BY name
),
placed AS (
    SELECT
        face.name, face.called_class, width_bucket(face.value, edge.edges) AS place
    FROM face
    JOIN edge USING (name)
),
bin AS (
    SELECT
        name, place,
        count(*) AS faces,
        count(*) FILTER (WHERE called_class = 'neither') AS neither
    FROM placed
    GROUP BY name, place
)
SELECT
    edge.name,
    edge.edges,
    array_agg(coalesce(bin.faces, 0) ORDER BY place.place) AS counts,
    sum(bin.faces)::bigint AS faces,
    sum(bin.neither)::double precision / sum(bin.faces) AS neither_share
FROM edge
CROSS JOIN LATERAL generate_series(0, cardinality(edge.edges)) AS place (place)
LEFT JOIN bin ON bin.name = edge.name AND bin.place = place.place
GROUP BY edge.name, edge.edges;
