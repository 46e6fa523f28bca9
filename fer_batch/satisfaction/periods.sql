-- name: load_parts
-- The newest summaries of the days (or weeks) of periods of some facilities. A period is left out
-- that has too few parts, or whose last day is not over: the date in the facility's time zone is not
-- after it yet, or no summary of it or of a later day exists. So is one that contains a day whose
-- summary maintenance has deleted: its figure would lack that day.
WITH part AS (
    SELECT DISTINCT ON (s.facility_id, asked.period_end, s.capture_day)
        s.facility_id, asked.period_end, s.capture_day, s.model_version, s.method, s.verdict,
        s.images,
        s.images_scored, s.images_pending, s.not_scored, s.faces, s.faces_scored, s.called_happy,
        s.called_sad, s.called_neither, s.totals, s.is_complete, s.is_below_expected
    FROM unnest(CAST(:facility_ids AS text[]), CAST(:ends AS date[]))
        AS asked (facility_id, period_end)
    JOIN fer.satisfaction_summary AS s
        ON s.facility_id = asked.facility_id
        AND s.period = :period
        AND s.capture_day > asked.period_end - CAST(:days AS integer)
        AND s.capture_day <= asked.period_end
    ORDER BY s.facility_id, asked.period_end, s.capture_day, s.revision DESC
),
complete AS (
    SELECT facility_id, period_end
    FROM part
    GROUP BY facility_id, period_end
    HAVING count(*) >= :parts
)
SELECT part.*
FROM part
JOIN complete USING (facility_id, period_end)
JOIN fer.facility USING (facility_id)
WHERE part.period_end < (now() AT TIME ZONE facility.time_zone)::date
    AND NOT EXISTS (
        SELECT FROM fer.retention AS r
        WHERE r.kind = 'summaries'
            AND r.before_day > part.period_end - CAST(:days AS integer) + 1)
    AND EXISTS (
        SELECT FROM fer.satisfaction_summary AS later
        WHERE later.facility_id = part.facility_id
            AND later.period = 'day'
            AND later.capture_day >= part.period_end)
ORDER BY part.facility_id, part.period_end, part.capture_day;

-- name: list_pending_weeks
-- The weeks of some facilities that publish by week, ended in a range of days, whose newest revision
-- is pending.
SELECT newest.facility_id, newest.capture_day
FROM (
    SELECT DISTINCT ON (s.facility_id, s.capture_day) s.facility_id, s.capture_day, s.verdict
    FROM fer.satisfaction_summary AS s
    JOIN fer.facility AS f USING (facility_id)
    WHERE s.facility_id = ANY(CAST(:facility_ids AS text[]))
        AND f.publish_period = 'week'
        AND s.period = 'week'
        AND s.capture_day BETWEEN :first_day AND :last_day
    ORDER BY s.facility_id, s.capture_day, s.revision DESC
) AS newest
WHERE newest.verdict = 'pending'
ORDER BY newest.facility_id, newest.capture_day;
