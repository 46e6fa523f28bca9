-- How wide are the intervals of each facility in the last four weeks, and what are they based on?
SELECT
    facility_name,
    session_rule,
    count(*) AS days,
    round(avg(faces)) AS faces_a_day,
    round(avg(sessions)) AS sessions_a_day,
    round(avg(faces_effective)) AS faces_effective_a_day,
    round(100 * avg(happy_rate_high - happy_rate_low)::numeric, 1) AS happy_points_wide,
    round(100 * avg(sad_rate_high - sad_rate_low)::numeric, 1) AS sad_points_wide,
    round(avg(benchmark_weight)::numeric, 2) AS benchmark_weight
FROM fer.satisfaction_daily
WHERE capture_day > (SELECT max(capture_day) FROM fer.satisfaction_daily) - 28
    AND happy_rate IS NOT NULL
GROUP BY facility_id, facility_name, session_rule
ORDER BY happy_points_wide DESC;
