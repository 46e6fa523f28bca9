-- On how many days of each week was each facility satisfied?
-- parameter facility: facility, only this one
-- Role: fer_reader
SELECT
    d.facility_name,
    date_trunc('week', d.capture_day)::date AS week_from,
    count(*) FILTER (WHERE d.verdict = 'satisfied') AS satisfied_days,
    count(*) FILTER (WHERE d.verdict = 'inconclusive') AS inconclusive_days,
    count(*) FILTER (WHERE d.verdict = 'not satisfied') AS not_satisfied_days,
    count(*) FILTER (WHERE d.verdict = 'suppressed') AS suppressed_days
FROM fer.satisfaction_daily AS d
WHERE d.capture_day < (now() AT TIME ZONE d.time_zone)::date
    AND d.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), d.facility_id)
    -- The verdicts of the method wilson are about another target.
    AND d.method <> 'wilson'
GROUP BY d.facility_id, d.facility_name, week_from
ORDER BY d.facility_name, week_from;
