-- warning: the faces differ from those that the facility's audit labeled: its labels may not be valid for them
-- closed by: later figure
-- Compared with the reference of the audit that corrects the figure. A distribution differs by the
-- population stability index of its bins. It must exceed the threshold and what chance explains:
-- without a difference it is about chi-squared times (1 / faces + 1 / faces of the reference), for
-- independent faces (B. Yurdakul 2018, Statistical Properties of Population Stability Index). The
-- faces of a visit have about the same size, so that each visit counts as one. The probabilities
-- are compared for the same model version only.
WITH figure AS (
    SELECT
        g.facility_id, g.first_day, g.capture_day, g.model_version, a.audit_id, a.reference,
        a.model_version = g.model_version AS is_same_version,
        g.faces_effective, least(g.faces_effective, g.sessions_effective) AS visits_effective,
        g.images - coalesce((g.not_scored ->> 'erased')::bigint, 0) AS images, g.not_scored,
        1 - g.called_happy_rate - g.called_sad_rate AS neither
    FROM fer.alert_figure(
        :facility_ids,
        (SELECT min(day) FROM unnest(CAST(:capture_days AS date[])) AS day),
        (SELECT max(day) FROM unnest(CAST(:capture_days AS date[])) AS day),
        :alert_min_faces, :alert_min_sessions) AS g
    JOIN fer.facility AS f
        ON f.facility_id = g.facility_id
        AND f.publish_period = g.period
    JOIN fer.audit AS a ON a.audit_id = g.audit_id
    WHERE g.is_complete
        AND g.faces_effective > 0
        AND g.capture_day = ANY(:capture_days)
        AND a.reference IS NOT NULL
),
image AS (
    SELECT DISTINCT ON (i.facility_id, i.capture_day, i.etag)
        i.facility_id, i.capture_day, i.image_key, i.member, r.model_version,
        figure.capture_day AS last_day
    FROM figure
    JOIN fer.image AS i
        ON i.facility_id = figure.facility_id
        AND i.capture_day BETWEEN figure.first_day AND figure.capture_day
    JOIN fer.image_result AS r
        ON r.facility_id = i.facility_id
        AND r.capture_day = i.capture_day
        AND r.image_key = i.image_key
        AND r.member = i.member
        AND r.model_version = figure.model_version
        AND r.etag = i.etag
    WHERE i.facility_id = ANY(:facility_ids)
        AND i.capture_day = ANY(:figure_days)
        AND r.facility_id = ANY(:facility_ids)
        AND r.capture_day = ANY(:figure_days)
        AND r.outcome = 'scored'
    ORDER BY
        i.facility_id, i.capture_day, i.etag, i.captured_at_utc, i.image_key, i.member
),
reference AS (
    SELECT
        figure.facility_id, figure.capture_day, property.name, property.title,
        CASE property.name WHEN 'face_px' THEN figure.visits_effective
            ELSE figure.faces_effective END AS effective,
        (figure.reference ->> property.size)::double precision AS reference_effective,
        ARRAY(
            SELECT edge::double precision
            FROM jsonb_array_elements_text(figure.reference -> 'edges' -> property.name) AS edge
        ) AS edges,
        figure.reference -> 'counts' -> property.name AS counts
    FROM figure
    CROSS JOIN (VALUES
        ('p_happy', 'p_happy', 'faces_effective'), ('p_sad', 'p_sad', 'faces_effective'),
        ('p_neither', 'p_neither', 'faces_effective'),
        ('face_px', 'the size of the faces', 'sessions_effective')
    ) AS property (name, title, size)
    WHERE figure.is_same_version OR property.name = 'face_px'
),
face AS (
    SELECT
        reference.facility_id, reference.capture_day, reference.name,
        width_bucket(
            CASE reference.name
                WHEN 'p_happy' THEN f.p_happy
                WHEN 'p_sad' THEN f.p_sad
                WHEN 'p_neither' THEN f.p_neither
                ELSE least(f.box_width, f.box_height) END::double precision,
            reference.edges) AS place
    FROM image
    JOIN fer.face_result AS f USING (facility_id, capture_day, image_key, member, model_version)
    JOIN reference
        ON reference.facility_id = image.facility_id
        AND reference.capture_day = image.last_day
    WHERE f.facility_id = ANY(:facility_ids)
        AND f.capture_day = ANY(:figure_days)
),
found AS (
    SELECT facility_id, capture_day, name, place, count(*) AS faces
    FROM face
    GROUP BY facility_id, capture_day, name, place
),
bin AS (
    SELECT
        reference.facility_id, reference.capture_day, reference.name, reference.title,
        reference.effective, reference.reference_effective,
        count(*) OVER property AS bins,
        -- Half a face more in each bin: the logarithm of an empty one is not finite.
        (coalesce(found.faces, 0) + 0.5) / (sum(coalesce(found.faces, 0) + 0.5) OVER property)
            AS share,
        (expected.faces::bigint + 0.5) / (sum(expected.faces::bigint + 0.5) OVER property)
            AS expected
    FROM reference
    CROSS JOIN LATERAL jsonb_array_elements_text(reference.counts)
        WITH ORDINALITY AS expected (faces, number)
    LEFT JOIN found
        ON found.facility_id = reference.facility_id
        AND found.capture_day = reference.capture_day
        AND found.name = reference.name
        AND found.place = expected.number - 1
    WINDOW property AS (
        PARTITION BY reference.facility_id, reference.capture_day, reference.name)
),
distribution AS (
    SELECT
        facility_id, capture_day, title,
        sum((share - expected) * ln(share / expected))::double precision AS index,
        -- The quantile of chi-squared (E. B. Wilson, M. M. Hilferty 1931).
        (1 / min(effective) + 1 / min(reference_effective)) * (min(bins) - 1)
            * (1 - 2 / (9.0 * (min(bins) - 1))
                + :alert_spread_factor * sqrt(2 / (9.0 * (min(bins) - 1)))) ^ 3 AS by_chance
    FROM bin
    GROUP BY facility_id, capture_day, name, title
),
share AS (
    SELECT
        facility_id, capture_day, format('of %s images %%s are %s', images, kind.outcome) AS title,
        kind.outcome = 'no_face' AS is_two_sided, images::double precision AS total,
        coalesce((not_scored ->> kind.outcome)::double precision, 0) / images AS share,
        coalesce((reference -> 'not_scored' ->> kind.outcome)::double precision, 0)
            / greatest((reference ->> 'images')::double precision, 1) AS expected
    FROM figure
    CROSS JOIN (VALUES
        ('no_face'), ('empty'), ('unreadable'), ('unsupported'), ('too_large'), ('too_small'),
        ('missing'), ('archived'), ('refused'), ('decoder_crashed')
    ) AS kind (outcome)
    WHERE images > 0
    UNION ALL
    SELECT
        facility_id, capture_day, 'of the faces %s are called neither', true, faces_effective,
        neither, (reference ->> 'neither_share')::double precision
    FROM figure
    WHERE is_same_version
),
difference AS (
    SELECT
        facility_id, capture_day, 1 AS place,
        string_agg(format('%s %s', title, round(index::numeric, 2)), ', ' ORDER BY index DESC)
            || ' (population stability index, which should be below '
            || round(CAST(:alert_drift_index AS numeric), 2) || ')' AS details
    FROM distribution
    WHERE index > :alert_drift_index AND index > by_chance
    GROUP BY facility_id, capture_day
    UNION ALL
    SELECT
        facility_id, capture_day, 2,
        string_agg(
            format(title, round(100 * share) || ' %') || ', in the audit '
                || round(100 * expected) || ' %',
            '; ' ORDER BY abs(share - expected) DESC)
    FROM share
    WHERE abs(share - expected) > :alert_drift_difference
        AND (is_two_sided OR share > expected)
        AND abs(share - expected) > :alert_spread_factor
            * sqrt((expected * total + 1) / (total + 2) * (1 - (expected * total + 1) / (total + 2))
                / total)
    GROUP BY facility_id, capture_day
)
SELECT
    figure.facility_id,
    figure.capture_day,
    format('%s; compared with audit %s. If the change is to stay, label again',
        string_agg(difference.details, '; ' ORDER BY difference.place), figure.audit_id) AS finding
FROM difference
JOIN figure USING (facility_id, capture_day)
GROUP BY figure.facility_id, figure.capture_day, figure.audit_id
