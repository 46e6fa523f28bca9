-- warning: a reason for not scoring images, or the share of faces called neither, is unusual for the facility
-- closed by: later figure
-- Compared with the median of its last 28 complete days, or 8 complete weeks if it publishes by week,
-- of the same model version; there must be 14 days or 4 weeks. Unusual is a distance of more than
-- several standard deviations: that of these days, estimated by their median absolute deviation, or
-- that of chance, if it is larger. That fewer images fail is unusual for faces not found only.
WITH figure AS (
    SELECT
        g.facility_id, g.period, g.capture_day, g.model_version, g.not_scored, g.faces_effective,
        g.images - coalesce((g.not_scored ->> 'erased')::bigint, 0) AS images,
        1 - g.called_happy_rate - g.called_sad_rate AS neither,
        row_number() OVER (
            PARTITION BY g.facility_id, g.model_version ORDER BY g.capture_day DESC) AS place
    FROM fer.alert_figure(
        :facility_ids,
        (SELECT min(day) FROM unnest(CAST(:capture_days AS date[])) AS day) - 56,
        (SELECT max(day) FROM unnest(CAST(:capture_days AS date[])) AS day),
        :alert_min_faces, :alert_min_sessions) AS g
    JOIN fer.facility AS f
        ON f.facility_id = g.facility_id
        AND f.publish_period = g.period
    WHERE g.is_complete
),
judged AS (
    SELECT
        f.facility_id, f.period, f.capture_day, f.model_version, f.place, kind.subject,
        f.images::double precision AS total,
        coalesce((f.not_scored ->> kind.subject)::double precision, 0) / f.images AS share
    FROM figure AS f
    CROSS JOIN (VALUES
        ('no_face'), ('empty'), ('unreadable'), ('unsupported'), ('too_large'), ('too_small'),
        ('missing'), ('archived'), ('refused'), ('decoder_crashed')
    ) AS kind (subject)
    WHERE f.images > 0
        AND f.capture_day = ANY(:capture_days)
        -- Other shares are not so much larger than the usual one, whatever that is.
        AND (kind.subject = 'no_face'
            OR (f.not_scored ->> kind.subject)::bigint > :alert_min_difference * f.images)
    UNION ALL
    SELECT
        facility_id, period, capture_day, model_version, place, 'neither', faces_effective, neither
    FROM figure
    WHERE faces_effective > 0 AND capture_day = ANY(:capture_days)
),
compared AS (
    SELECT
        j.facility_id, j.period, j.capture_day, j.subject, j.total, j.share,
        CASE j.subject
            WHEN 'neither' THEN u.neither
            ELSE coalesce((u.not_scored ->> j.subject)::double precision, 0) / u.images END AS usual
    FROM judged AS j
    JOIN figure AS u
        ON u.facility_id = j.facility_id
        AND u.model_version = j.model_version
        AND u.place BETWEEN j.place + 1 AND j.place + 28
        AND u.capture_day >= j.capture_day - 56
    WHERE u.images > 0
),
middle AS (
    SELECT
        facility_id, period, capture_day, subject, total, share,
        count(*) AS days,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY usual) AS median,
        array_agg(usual) AS usual_shares
    FROM compared
    GROUP BY facility_id, period, capture_day, subject, total, share
    HAVING count(*) >= CASE period WHEN 'day' THEN 14 ELSE 4 END
),
spread AS (
    SELECT
        m.facility_id, m.period, m.capture_day, m.subject, m.total, m.share, m.days, m.median,
        (m.median * m.total + 1) / (m.total + 2) AS smoothed, -- the deviation of 0 of 100 is not 0
        (SELECT 1.4826 * percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(each.usual - m.median))
            FROM unnest(m.usual_shares) AS each (usual)) AS deviation
    FROM middle AS m
    WHERE abs(m.share - m.median) > :alert_min_difference
)
SELECT
    facility_id,
    capture_day,
    subject,
    format('%s; usually %s %% (the last %s complete %s)',
        CASE subject
            WHEN 'neither' THEN format('%s %% of the faces are called neither', round(100 * share))
            ELSE format('%s %% of %s images are %s', round(100 * share), total, subject) END,
        round(100 * median), days, period || 's') AS finding
FROM spread
WHERE abs(share - median) > :alert_spread_factor
        * greatest(deviation, sqrt(smoothed * (1 - smoothed) / total))
    AND (subject IN ('no_face', 'neither') OR share > median)
