-- Which weeks met the target, and how did the happy rate change from week to week?
-- parameter facility: facility, only this one
-- parameter weeks: number 1 to 500, how many weeks up to the newest one; 8 if not given
-- Role: fer_reader
SELECT
    w.facility_name,
    w.first_day,
    w.last_day,
    w.verdict,
    round(100 * w.happy_rate::numeric) AS happy_percent,
    round(100 * w.happy_rate_low::numeric) AS from_percent,
    round(100 * w.happy_rate_high::numeric) AS to_percent,
    round(100 * w.target_rate::numeric) AS target_percent,
    round(100 * c.happy_change::numeric) AS points_since_week_before,
    CASE
        WHEN c.happy_q_value IS NULL THEN 'no comparable week before'
        WHEN c.happy_q_value > 0.05 THEN 'no clear change'
        WHEN c.happy_change > 0 THEN 'rose'
        ELSE 'fell'
    END AS change,
    w.faces,
    w.is_complete,
    CASE WHEN w.is_comparable THEN 'comparable' ELSE 'not comparable' END AS with_other_facilities
FROM fer.satisfaction_period AS w
JOIN fer.newest_complete_day AS newest USING (facility_id)
LEFT JOIN fer.change_public AS c
    ON c.facility_id = w.facility_id
    AND c.period = 'week'
    AND c.last_day = w.last_day
    AND c.comparison = 'period before'
WHERE w.period = 'week'
    AND w.last_day <= newest.capture_day + 6
    AND w.last_day > newest.capture_day - 7 * coalesce(nullif(current_setting('fer.weeks', true), '')::integer, 8)
    AND w.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), w.facility_id)
    AND w.method <> 'wilson' -- its verdict is about another figure
ORDER BY w.facility_name, w.last_day;
