-- Which newest verdicts are inconclusive, and about how many faces would settle them?
-- parameter facility: facility, only this one
-- Role: fer_reader
SELECT
    facility_name,
    period,
    last_day,
    round(100 * happy_rate::numeric) AS happy_percent,
    round(100 * happy_rate_low::numeric) AS from_percent,
    round(100 * happy_rate_high::numeric) AS to_percent,
    round(100 * target_rate::numeric) AS target_percent,
    faces,
    faces_needed,
    CASE WHEN faces_needed IS NULL
        THEN 'more faces alone would not settle it'
        ELSE concat('about ', round(faces_needed::numeric / faces, 1), ' times as many') END AS means
FROM (
    SELECT
        d.facility_id, d.facility_name, 'day' AS period, d.capture_day AS last_day, d.verdict,
        d.happy_rate, d.happy_rate_low, d.happy_rate_high, d.target_rate, d.faces, d.faces_needed
    FROM fer.satisfaction_daily AS d
    JOIN fer.newest_complete_day AS newest USING (facility_id, capture_day)
    UNION ALL
    SELECT * FROM (
        SELECT DISTINCT ON (p.facility_id, p.period)
            p.facility_id, p.facility_name, p.period, p.last_day, p.verdict,
            p.happy_rate, p.happy_rate_low, p.happy_rate_high, p.target_rate, p.faces,
            p.faces_needed
        FROM fer.satisfaction_period AS p
        JOIN fer.newest_complete_day AS newest USING (facility_id)
        WHERE p.last_day <= newest.capture_day AND p.method <> 'wilson'
        ORDER BY p.facility_id, p.period, p.last_day DESC
    ) AS longer
) AS newest_of_each
WHERE verdict = 'inconclusive' AND happy_rate IS NOT NULL
    AND facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), facility_id)
ORDER BY facility_name, array_position(ARRAY['day', 'week', 'four weeks'], period);
