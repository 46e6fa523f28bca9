-- How did the happy rate of each facility change from day to day?
-- parameter facility: facility, only this one
-- parameter days: number 1 to 4000, how many days up to the newest complete one; 28 if not given
-- Role: fer_reader
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
    left(d.model_version, 12) AS model,
    CASE WHEN d.is_comparable THEN 'comparable' ELSE 'not comparable' END AS with_other_facilities
FROM fer.satisfaction_daily AS d
JOIN fer.newest_complete_day AS newest USING (facility_id)
WHERE d.capture_day > newest.capture_day - coalesce(nullif(current_setting('fer.days', true), '')::integer, 28)
    AND d.capture_day <= newest.capture_day
    AND d.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), d.facility_id)
    -- Rates of different methods must not be compared.
    AND d.method IN ('raw', 'benchmark', 'local', 'suppressed')
ORDER BY d.facility_name, d.capture_day;
