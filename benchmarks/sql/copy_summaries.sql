-- The newest summaries of a day as those of earlier days, whose images are not needed.
INSERT INTO fer.satisfaction_summary
SELECT (jsonb_populate_record(
    s,
    jsonb_build_object('capture_day', earlier.day, 'first_day', earlier.day, 'revision', 1)
)).*
FROM fer.satisfaction_summary AS s
CROSS JOIN generate_series(
    CAST(:day AS date) - :days + 1, CAST(:day AS date) - 1, '1 day'::interval
) AS earlier (day)
WHERE s.period = 'day'
    AND s.capture_day = :day
    AND NOT EXISTS (
        SELECT FROM fer.satisfaction_summary AS newer
        WHERE newer.facility_id = s.facility_id
            AND newer.period = 'day'
            AND newer.capture_day = :day
            AND newer.revision > s.revision);
