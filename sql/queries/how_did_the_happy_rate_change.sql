-- How did the happy rate of each facility change over its last four weeks?
SELECT
    d.facility_name,
    d.capture_day,
    to_char(d.capture_day, 'Dy') AS weekday,
    d.happy_rate,
    d.happy_rate_low,
    d.happy_rate_high,
    d.sad_rate,
    d.neither_rate,
    d.verdict,
    d.method,
    left(d.model_version, 12) AS model
FROM fer.satisfaction_daily AS d
JOIN fer.newest_complete_day AS newest USING (facility_id)
WHERE d.capture_day BETWEEN newest.capture_day - 27 AND newest.capture_day
    -- Rates of different methods must not be compared.
    AND d.method IN ('raw', 'benchmark', 'local', 'suppressed')
ORDER BY d.facility_name, d.capture_day;
