-- The changes of published figures; the table has nothing that is not published.
CREATE OR REPLACE VIEW fer.change_public AS
SELECT
    facility_id,
    period,
    capture_day AS last_day,
    comparison,
    happy_change,
    happy_change_low,
    happy_change_high,
    happy_q_value,
    sad_change,
    sad_change_low,
    sad_change_high,
    sad_q_value
FROM fer.satisfaction_change;

COMMENT ON VIEW fer.change_public IS 'One row per facility, period and comparison: by how much the published rates changed against an earlier period.';
COMMENT ON COLUMN fer.change_public.facility_id IS 'Facility, as in the other views';
COMMENT ON COLUMN fer.change_public.period IS 'day, week or four weeks';
COMMENT ON COLUMN fer.change_public.last_day IS 'Last day of the period';
COMMENT ON COLUMN fer.change_public.comparison IS 'The earlier period, such as period before or week before (the same weekday)';
COMMENT ON COLUMN fer.change_public.happy_change IS 'happy_rate minus that of the earlier period';
COMMENT ON COLUMN fer.change_public.happy_change_low IS 'Lower end of its 95 % interval';
COMMENT ON COLUMN fer.change_public.happy_change_high IS 'Upper end of that interval';
COMMENT ON COLUMN fer.change_public.happy_q_value IS 'q value over all facilities: below 0.05, at most 5 % of such changes are by chance';
COMMENT ON COLUMN fer.change_public.sad_change IS 'sad_rate minus that of the earlier period';
COMMENT ON COLUMN fer.change_public.sad_change_low IS 'Lower end of its 95 % interval';
COMMENT ON COLUMN fer.change_public.sad_change_high IS 'Upper end of that interval';
COMMENT ON COLUMN fer.change_public.sad_q_value IS 'q value over all facilities, as happy_q_value';
