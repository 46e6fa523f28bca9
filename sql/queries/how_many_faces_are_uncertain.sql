-- How many faces of each facility are uncertain and therefore excluded from the happy share?
SELECT
    facility_name,
    count(*) AS days,
    sum(faces) AS faces,
    sum(uncertain) AS uncertain,
    round(100.0 * sum(uncertain) / nullif(sum(faces), 0), 1) AS uncertain_percent,
    round(100.0 * sum(neither) / nullif(sum(faces), 0), 1) AS neither_percent
FROM fer.satisfaction_daily
WHERE verdict <> 'suppressed'
GROUP BY facility_id, facility_name
ORDER BY uncertain_percent DESC NULLS LAST;
