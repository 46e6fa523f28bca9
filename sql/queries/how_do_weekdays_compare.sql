-- On which weekdays are most faces called happy, over the published days of the last weeks?
-- parameter facility: facility, only this one
-- parameter weeks: number 1 to 500, how many weeks up to the newest complete day; 8 if not given
-- Role: fer_reader
-- Compare the weekdays of a facility. Called shares are not corrected: they are not comparable
-- between facilities.
SELECT
    d.facility_name,
    to_char(d.capture_day, 'Dy') AS weekday,
    count(*) AS days,
    sum(d.faces) AS faces,
    round((100 * sum(d.called_happy_rate * d.faces) / sum(d.faces))::numeric) AS called_happy_percent,
    count(*) FILTER (WHERE d.verdict = 'satisfied') AS satisfied_days,
    count(*) FILTER (WHERE d.verdict = 'not satisfied') AS not_satisfied_days,
    'not comparable' AS with_other_facilities
FROM fer.satisfaction_daily AS d
JOIN fer.newest_complete_day AS newest USING (facility_id)
-- Rates of different model versions must not be compared.
JOIN fer.satisfaction_daily AS latest
    ON latest.facility_id = newest.facility_id AND latest.capture_day = newest.capture_day
WHERE d.capture_day > newest.capture_day - 7 * coalesce(nullif(current_setting('fer.weeks', true), '')::integer, 8)
    AND d.capture_day <= newest.capture_day
    AND d.called_happy_rate IS NOT NULL
    AND d.model_version = latest.model_version
    AND d.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), d.facility_id)
GROUP BY d.facility_id, d.facility_name, weekday, extract(ISODOW FROM d.capture_day)
ORDER BY d.facility_name, extract(ISODOW FROM d.capture_day);
