-- warning: keys from which name_template reads no capture time; the day is divided into blocks
-- closed by: later images
SELECT
    i.facility_id,
    i.capture_day,
    format('%s of %s keys', count(*) FILTER (WHERE i.captured_at_utc IS NULL), count(*)) AS finding,
    'first ' || min(i.image_key) FILTER (WHERE i.captured_at_utc IS NULL) AS example
FROM fer.image AS i
JOIN fer.facility AS f ON f.facility_id = i.facility_id AND f.name_template IS NOT NULL
WHERE i.facility_id = ANY(:facility_ids) AND i.capture_day = ANY(:capture_days)
GROUP BY i.facility_id, i.capture_day
HAVING count(*) FILTER (WHERE i.captured_at_utc IS NULL) > 0
