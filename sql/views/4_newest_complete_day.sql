-- The day up to which the figures of a facility may be read. It is asked of each facility, because
-- the days of facilities in other time zones end at other times.
CREATE OR REPLACE VIEW fer.newest_complete_day AS
SELECT DISTINCT ON (daily.facility_id)
    daily.facility_id,
    daily.facility_name,
    daily.capture_day,
    daily.is_complete
FROM fer.satisfaction_daily AS daily
JOIN fer.facility USING (facility_id)
WHERE facility.is_in_registry
    AND daily.capture_day < (now() AT TIME ZONE facility.time_zone)::date
ORDER BY daily.facility_id, daily.is_complete DESC, daily.capture_day DESC;

COMMENT ON VIEW fer.newest_complete_day IS 'One row per facility of the registry that has a summary: its newest complete day. Join it to ask about the latest day of each facility.';
COMMENT ON COLUMN fer.newest_complete_day.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.newest_complete_day.facility_name IS 'Display name of the facility';
COMMENT ON COLUMN fer.newest_complete_day.capture_day IS 'The newest complete day of the facility; if it has none, its newest day with a summary. Always before the current date in its time zone';
COMMENT ON COLUMN fer.newest_complete_day.is_complete IS 'False: the facility has no complete day yet, and capture_day is an incomplete one';
