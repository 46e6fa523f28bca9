-- When customers are happiest, as the report shows it. A cell with few faces or sessions is
-- suppressed, and so that it cannot be computed from the total of its weekday, others with it: the
-- smallest, until the suppressed cells of the weekday together are not few. There are no numbers of
-- faces, and only whole weeks, so that two states of this view cannot be subtracted.
CREATE OR REPLACE VIEW fer.happy_by_hour AS
WITH recent AS (
    SELECT
        facility_id,
        facility_name,
        capture_day - extract(ISODOW FROM capture_day)::integer % 7 AS last_day -- a Sunday
    FROM fer.newest_complete_day
    WHERE is_complete
),
newest AS (
    SELECT DISTINCT ON (s.facility_id, s.capture_day)
        s.facility_id, s.capture_day, s.method, s.model_version, s.hours
    FROM recent
    JOIN fer.satisfaction_summary AS s USING (facility_id)
    WHERE s.period = 'day' AND s.capture_day BETWEEN recent.last_day - 27 AND recent.last_day
    ORDER BY s.facility_id, s.capture_day, s.revision DESC
),
published AS (
    SELECT
        *,
        first_value(model_version) OVER (PARTITION BY facility_id ORDER BY capture_day DESC)
            AS newest_version
    FROM newest
    WHERE method IN ('raw', 'benchmark', 'local')
),
used AS (
    SELECT *
    FROM published
    WHERE model_version = newest_version AND hours <> '{}'
),
cell AS (
    SELECT
        used.facility_id,
        extract(ISODOW FROM used.capture_day)::integer AS weekday,
        counted.hour::integer AS hour,
        sum((counted.counts ->> 0)::bigint) AS happy,
        sum((counted.counts ->> 0)::bigint + (counted.counts ->> 1)::bigint
            + (counted.counts ->> 2)::bigint) AS faces,
        sum((counted.counts ->> 3)::bigint) AS sessions
    FROM used
    CROSS JOIN LATERAL jsonb_each(used.hours) AS counted (hour, counts)
    WHERE used.facility_id IN (
        SELECT facility_id
        FROM used
        GROUP BY facility_id
        HAVING count(DISTINCT date_trunc('week', capture_day)) = 4)
    GROUP BY used.facility_id, weekday, counted.hour
),
sized AS (
    SELECT *, faces < 30 OR sessions < 10 AS is_small
    FROM cell
),
hidden AS (
    SELECT
        *,
        is_small
        OR sum(faces) OVER before < 30
        -- A session that goes on into the next hour counts in both.
        OR sum(sessions) OVER before < CASE count(*) OVER before WHEN 1 THEN 10 ELSE 20 END
            AS is_suppressed
    FROM sized
    WINDOW before AS (
        PARTITION BY facility_id, weekday
        ORDER BY is_small DESC, faces, hour
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT
    recent.facility_id,
    recent.facility_name,
    recent.last_day - 27 AS first_day,
    recent.last_day,
    hidden.weekday,
    hidden.hour,
    CASE WHEN NOT coalesce(hidden.is_suppressed, false)
        THEN round(100.0 * hidden.happy / hidden.faces)::integer END AS called_happy_percent,
    coalesce(hidden.is_suppressed, false) AS is_suppressed
FROM hidden
JOIN recent USING (facility_id);

COMMENT ON VIEW fer.happy_by_hour IS 'Share of faces called happy by weekday and local hour, over the newest four complete ISO weeks of each facility whose images have capture times. No row: none of the faces, or a week without a published day.';
COMMENT ON COLUMN fer.happy_by_hour.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.happy_by_hour.facility_name IS 'Display name of the facility';
COMMENT ON COLUMN fer.happy_by_hour.first_day IS 'First day of the four weeks, a Monday';
COMMENT ON COLUMN fer.happy_by_hour.last_day IS 'Last day of the four weeks, a Sunday';
COMMENT ON COLUMN fer.happy_by_hour.weekday IS 'Weekday: 1 is Monday, 7 is Sunday';
COMMENT ON COLUMN fer.happy_by_hour.hour IS 'Hour (0 to 23) in the time zone of the facility';
COMMENT ON COLUMN fer.happy_by_hour.called_happy_percent IS 'Share (0 to 100) of the faces that were called happy, in whole percents, not corrected; null: suppressed';
COMMENT ON COLUMN fer.happy_by_hour.is_suppressed IS 'True: too few faces or sessions, or another cell of the weekday could be computed from this one';
