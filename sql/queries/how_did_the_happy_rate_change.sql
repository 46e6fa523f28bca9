-- How did the happy rate of each facility change over the last four weeks?
SELECT
    facility_name,
    capture_day,
    to_char(capture_day, 'Dy') AS weekday,
    happy_rate,
    happy_rate_low,
    happy_rate_high,
    sad_rate,
    neither_rate,
    verdict,
    method,
    left(model_version, 12) AS model
FROM fer.satisfaction_daily
WHERE capture_day > (SELECT max(capture_day) FROM fer.satisfaction_daily) - 28
    -- Rates of different methods must not be compared.
    AND method IN ('raw', 'benchmark', 'local', 'suppressed')
ORDER BY facility_name, capture_day;
