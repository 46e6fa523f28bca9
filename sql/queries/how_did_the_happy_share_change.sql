-- How did the happy share of each facility change over the last four weeks?
SELECT
    facility_name,
    capture_day,
    to_char(capture_day, 'Dy') AS weekday,
    happy_share,
    happy_share_low,
    happy_share_high,
    uncertain_share,
    neither_share,
    verdict,
    left(model_version, 12) AS model
FROM fer.satisfaction_daily
WHERE capture_day > (SELECT max(capture_day) FROM fer.satisfaction_daily) - 28
ORDER BY facility_name, capture_day;
