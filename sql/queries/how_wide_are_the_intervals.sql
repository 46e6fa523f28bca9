-- How wide are the intervals of each facility in its last four weeks, and what are they based on?
-- parameter facility: facility, only this one
-- Role: fer_reader
SELECT
    d.facility_name,
    d.session_rule,
    count(*) AS days,
    round(avg(d.faces)) AS faces_a_day,
    round(avg(d.sessions)) AS sessions_a_day,
    round(avg(d.faces_effective)) AS faces_effective_a_day,
    round(100 * avg(d.happy_rate_high - d.happy_rate_low)::numeric, 1) AS happy_points_wide,
    round(100 * avg(d.sad_rate_high - d.sad_rate_low)::numeric, 1) AS sad_points_wide,
    round(avg(d.benchmark_weight)::numeric, 2) AS benchmark_weight
FROM fer.satisfaction_daily AS d
JOIN fer.newest_complete_day AS newest USING (facility_id)
WHERE d.capture_day BETWEEN newest.capture_day - 27 AND newest.capture_day
    AND d.happy_rate IS NOT NULL
    AND d.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), d.facility_id)
GROUP BY d.facility_id, d.facility_name, d.session_rule
ORDER BY happy_points_wide DESC;
