-- Which facilities were satisfied on their newest complete day, and how certain is that?
-- Role: fer_reader
SELECT
    d.facility_name,
    d.capture_day,
    d.verdict,
    round(100 * d.happy_rate::numeric) AS happy_percent,
    round(100 * d.happy_rate_low::numeric) AS from_percent,
    round(100 * d.happy_rate_high::numeric) AS to_percent,
    round(100 * d.target_rate::numeric) AS target_percent,
    d.faces,
    d.is_complete,
    CASE WHEN d.is_comparable THEN 'comparable' ELSE 'not comparable' END AS with_other_facilities
FROM fer.satisfaction_daily AS d
JOIN fer.newest_complete_day AS newest USING (facility_id, capture_day)
WHERE d.method <> 'wilson' -- its verdict is about another figure
ORDER BY d.facility_name;
