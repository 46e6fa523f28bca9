-- Which facilities were satisfied on the latest day, and how certain is that?
SELECT
    facility_name,
    capture_day,
    verdict,
    round(100 * happy_rate::numeric) AS happy_percent,
    round(100 * happy_rate_low::numeric) AS from_percent,
    round(100 * happy_rate_high::numeric) AS to_percent,
    round(100 * target_rate::numeric) AS target_percent,
    faces,
    is_complete
FROM fer.satisfaction_daily
WHERE capture_day = (SELECT max(capture_day) FROM fer.satisfaction_daily)
    AND method <> 'wilson' -- its verdict is about another figure
ORDER BY facility_name;
