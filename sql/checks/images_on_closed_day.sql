-- warning: images were taken on a closed weekday; check closed_weekdays, time_zone and day_clock
-- closed by: same weekday
SELECT
    i.facility_id,
    i.capture_day,
    to_char(i.capture_day, 'dy') AS subject,
    format('%s images; %s is in closed_weekdays', count(*), to_char(i.capture_day, 'dy'))
        AS finding
FROM fer.image AS i
JOIN fer.facility AS f USING (facility_id)
WHERE i.facility_id = ANY(:facility_ids)
    AND i.capture_day = ANY(:capture_days)
    AND to_char(i.capture_day, 'dy') = ANY(f.closed_weekdays)
    AND NOT fer.is_day_deleted(i.facility_id, i.capture_day)
GROUP BY i.facility_id, i.capture_day
-- A few may be of a guard or a delivery.
HAVING count(*) >= 5
