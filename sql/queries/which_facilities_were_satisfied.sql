-- Which facilities were satisfied on the latest day, and how certain is that?
SELECT
    facility_name,
    capture_day,
    verdict,
    round(100 * happy_share::numeric, 1) AS happy_percent,
    round(100 * happy_share_low::numeric, 1) AS from_percent,
    round(100 * happy_share_high::numeric, 1) AS to_percent,
    round(100 * target_share::numeric, 1) AS target_percent,
    faces,
    is_complete
FROM fer.satisfaction_daily
WHERE capture_day = (SELECT max(capture_day) FROM fer.satisfaction_daily)
ORDER BY facility_name;
