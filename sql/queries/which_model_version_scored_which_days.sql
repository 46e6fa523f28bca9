-- How many of the newest summaries come from each model version, and for which days?
-- Role: fer_writer
SELECT
    left(m.model_version, 12) AS model,
    m.card ->> 'name' AS name,
    m.registered_at,
    count(d.facility_id) AS summaries,
    min(d.capture_day) AS first_day,
    max(d.capture_day) AS last_day
FROM fer.model_version AS m
LEFT JOIN fer.satisfaction_daily AS d
    ON d.model_version = m.model_version
    AND d.capture_day <= (now() AT TIME ZONE d.time_zone)::date
GROUP BY m.model_version
ORDER BY m.registered_at;
