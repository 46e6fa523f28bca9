-- The days that were erased as a whole, without who did it and how many images they had.
CREATE OR REPLACE VIEW fer.erased_day AS
SELECT
    facility_id,
    capture_day
FROM fer.deletion
WHERE kind = 'day';

COMMENT ON VIEW fer.erased_day IS 'One row per facility and capture day that was erased as a whole: no run reads it again.';
COMMENT ON COLUMN fer.erased_day.facility_id IS 'Facility, as in the other views';
COMMENT ON COLUMN fer.erased_day.capture_day IS 'Erased capture day; it has a summary only if it was summarized before';
