-- The findings without the details of days and the comments of people, which may name images.
CREATE OR REPLACE VIEW fer.finding_public AS
SELECT
    finding_id,
    facility_id,
    check_name,
    subject,
    severity,
    meaning,
    first_day,
    last_day,
    state,
    opened_at,
    closed_at
FROM fer.finding;

COMMENT ON VIEW fer.finding_public IS 'Problems that the data checks found, one row for each from its first to its last day.';
COMMENT ON COLUMN fer.finding_public.finding_id IS 'Number of the finding, for fer-batch findings';
COMMENT ON COLUMN fer.finding_public.facility_id IS 'Facility, as in the other views';
COMMENT ON COLUMN fer.finding_public.check_name IS 'Name of the check, such as frozen_camera';
COMMENT ON COLUMN fer.finding_public.subject IS 'What of the facility the problem is about, such as a camera; empty: the facility';
COMMENT ON COLUMN fer.finding_public.severity IS 'error or warning';
COMMENT ON COLUMN fer.finding_public.meaning IS 'What a finding of this check means';
COMMENT ON COLUMN fer.finding_public.first_day IS 'First capture day that showed the problem';
COMMENT ON COLUMN fer.finding_public.last_day IS 'Last capture day that showed the problem';
COMMENT ON COLUMN fer.finding_public.state IS 'open: needs attention. acknowledged: somebody takes care of it. closed: over';
COMMENT ON COLUMN fer.finding_public.opened_at IS 'When the problem was first found';
COMMENT ON COLUMN fer.finding_public.closed_at IS 'When it was closed; null: it is not';
