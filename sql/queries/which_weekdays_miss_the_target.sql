-- On which weekdays does a facility miss its target most often?
-- parameter facility: facility, only this one
-- Role: fer_reader
SELECT
    facility_name,
    to_char(capture_day, 'Dy') AS weekday,
    count(*) AS days,
    count(*) FILTER (WHERE verdict = 'not satisfied') AS not_satisfied_days
FROM fer.satisfaction_daily
WHERE is_complete AND verdict IN ('satisfied', 'not satisfied', 'inconclusive')
    AND capture_day < (now() AT TIME ZONE time_zone)::date
    AND facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), facility_id)
    -- The verdicts of the method wilson are about another target.
    AND method <> 'wilson'
GROUP BY facility_id, facility_name, weekday, extract(isodow FROM capture_day)
ORDER BY facility_name, extract(isodow FROM capture_day);
