-- warning: the happy rate is clearly below the target on several days or weeks
-- closed by: later figure
-- Clearly: the whole interval is below the target of the newest of these days.
WITH figure AS (
    SELECT g.*
    FROM fer.alert_figure(
        :facility_ids,
        (SELECT min(day) FROM unnest(CAST(:capture_days AS date[])) AS day)
            - greatest(:alert_below_window_days, 7 * :alert_below_window_weeks),
        (SELECT max(day) FROM unnest(CAST(:capture_days AS date[])) AS day),
        :alert_min_faces, :alert_min_sessions) AS g
    JOIN fer.facility AS f
        ON f.facility_id = g.facility_id
        AND f.publish_period = g.period -- what is published is what an alert is about
    WHERE g.method <> 'raw'
)
SELECT
    newest.facility_id,
    newest.capture_day,
    format('on %s of the last %s; newest: %s %% (%s to %s), target %s %%',
        count(*) FILTER (WHERE earlier.happy_rate_high < newest.target_rate),
        CASE newest.period
            WHEN 'day' THEN format('%s days', :alert_below_window_days)
            ELSE format('%s weeks', :alert_below_window_weeks) END,
        round(100 * newest.happy_rate), round(100 * newest.happy_rate_low),
        round(100 * newest.happy_rate_high), round(100 * newest.target_rate)) AS finding
FROM figure AS newest
JOIN figure AS earlier
    ON earlier.facility_id = newest.facility_id
    AND earlier.capture_day <= newest.capture_day
    AND earlier.capture_day > newest.capture_day - CASE newest.period
        WHEN 'day' THEN :alert_below_window_days
        ELSE 7 * :alert_below_window_weeks END
WHERE newest.capture_day = ANY(:capture_days)
GROUP BY
    newest.facility_id, newest.capture_day, newest.period, newest.happy_rate,
    newest.happy_rate_low, newest.happy_rate_high, newest.target_rate
HAVING count(*) FILTER (WHERE earlier.happy_rate_high < newest.target_rate)
    >= CASE newest.period WHEN 'day' THEN :alert_below_days ELSE :alert_below_weeks END
