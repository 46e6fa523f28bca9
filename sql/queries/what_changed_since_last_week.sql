-- What changed since a week ago: on the newest complete day, and in the newest week?
-- parameter facility: facility, only this one
-- Role: fer_reader
SELECT
    newest.facility_name,
    c.period,
    c.last_day,
    CASE
        WHEN coalesce(c.happy_q_value, 1) > 0.05 THEN 'no clear change'
        WHEN c.happy_change > 0 THEN 'rose'
        ELSE 'fell'
    END AS change,
    round(100 * c.happy_change::numeric) AS happy_points,
    round(100 * c.happy_change_low::numeric) AS from_points,
    round(100 * c.happy_change_high::numeric) AS to_points,
    round(c.happy_q_value::numeric, 4) AS happy_q_value
FROM fer.newest_complete_day AS newest
JOIN fer.change_public AS c USING (facility_id)
WHERE (
        c.period = 'day' AND c.comparison = 'week before' AND c.last_day = newest.capture_day
        OR c.period = 'week' AND c.comparison = 'period before'
        AND c.last_day BETWEEN newest.capture_day - 6 AND newest.capture_day)
    AND c.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), c.facility_id)
ORDER BY coalesce(c.happy_q_value, 1) > 0.05, c.happy_q_value, newest.facility_name, c.period;
