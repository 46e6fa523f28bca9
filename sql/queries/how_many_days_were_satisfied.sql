-- On how many days of each week was each facility satisfied?
SELECT
    facility_name,
    date_trunc('week', capture_day)::date AS week_from,
    count(*) FILTER (WHERE verdict = 'satisfied') AS satisfied_days,
    count(*) FILTER (WHERE verdict = 'inconclusive') AS inconclusive_days,
    count(*) FILTER (WHERE verdict = 'not satisfied') AS not_satisfied_days,
    count(*) FILTER (WHERE verdict = 'suppressed') AS suppressed_days
FROM fer.satisfaction_daily
-- The verdicts of the method wilson are about another target.
WHERE method <> 'wilson'
GROUP BY facility_id, facility_name, week_from
ORDER BY facility_name, week_from;
