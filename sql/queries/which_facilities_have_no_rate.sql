-- Which facilities have no rate for their newest complete day or week, and why?
-- parameter facility: facility, only this one
-- Role: fer_writer
SELECT
    f.name AS facility_name,
    newest.capture_day,
    CASE
        WHEN f.permission_valid_until IS NULL
            OR f.permission_valid_until < (now() AT TIME ZONE f.time_zone)::date
            THEN 'no valid permission'
        WHEN newest.capture_day IS NULL THEN 'no day has a summary'
        WHEN NOT newest.is_complete THEN 'no day is complete'
        WHEN d.images = 0 THEN 'no images'
        WHEN f.publish_period = 'week' THEN 'its last week has no rate'
        ELSE d.verdict
    END AS reason,
    d.images,
    d.images_pending,
    d.faces,
    last_listing.capture_day AS last_listed_day,
    last_listing.status AS last_listing,
    last_listing.reason AS listing_problem,
    greatest(
        (
            SELECT max(rated.capture_day)
            FROM fer.satisfaction_daily AS rated
            WHERE rated.facility_id = f.facility_id AND rated.happy_rate IS NOT NULL
        ),
        (
            SELECT max(rated.last_day)
            FROM fer.satisfaction_period AS rated
            WHERE rated.facility_id = f.facility_id AND rated.happy_rate IS NOT NULL
        )) AS last_rate
FROM fer.facility AS f
LEFT JOIN fer.newest_complete_day AS newest USING (facility_id)
LEFT JOIN fer.satisfaction_daily AS d
    ON d.facility_id = newest.facility_id AND d.capture_day = newest.capture_day
LEFT JOIN LATERAL (
    SELECT b.capture_day, b.status, b.reason
    FROM fer.batch AS b
    WHERE b.facility_id = f.facility_id
        AND b.capture_day < (now() AT TIME ZONE f.time_zone)::date
    ORDER BY b.capture_day DESC
    LIMIT 1
) AS last_listing ON true
WHERE f.is_in_registry
    AND f.facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), f.facility_id)
    AND d.happy_rate IS NULL
    AND NOT (
        f.publish_period = 'week'
        AND EXISTS (
            SELECT FROM fer.satisfaction_period AS w
            WHERE w.facility_id = f.facility_id
                AND w.period = 'week'
                AND w.last_day BETWEEN newest.capture_day - 6 AND newest.capture_day
                AND w.happy_rate IS NOT NULL))
ORDER BY f.name;
