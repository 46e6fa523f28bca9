-- warning: the happy rate fell clearly against last week
-- closed by: later change
-- Clearly: the interval of the change excludes 0, and the change is among those of all facilities of
-- which at most 5 % are false.
WITH figure AS (
    SELECT g.facility_id, g.period, g.capture_day
    FROM fer.alert_figure(
        :facility_ids,
        (SELECT min(day) FROM unnest(CAST(:capture_days AS date[])) AS day) - 7,
        (SELECT max(day) FROM unnest(CAST(:capture_days AS date[])) AS day),
        :alert_min_faces, :alert_min_sessions) AS g
)
SELECT
    c.facility_id,
    c.capture_day,
    c.period AS subject,
    format('by about %s points (%s to %s) against the %s before',
        round(-100 * c.happy_change), round(-100 * c.happy_change_high),
        round(-100 * c.happy_change_low),
        CASE c.period WHEN 'day' THEN trim(to_char(c.capture_day, 'Day')) ELSE c.period END)
        AS finding
FROM fer.satisfaction_change AS c
JOIN figure AS later
    ON later.facility_id = c.facility_id
    AND later.period = c.period
    AND later.capture_day = c.capture_day
JOIN figure AS earlier
    ON earlier.facility_id = c.facility_id
    AND earlier.period = c.period
    AND earlier.capture_day = c.capture_day - 7
WHERE c.facility_id = ANY(:facility_ids)
    AND c.capture_day = ANY(:capture_days)
    AND (c.period, c.comparison) IN (('day', 'week before'), ('week', 'period before'))
    AND c.happy_change_high < 0
    AND c.happy_q_value <= :max_q_value
