-- The audits without their faces and labels: which faces they were drawn from, and when they hold.
CREATE OR REPLACE VIEW fer.audit_public AS
SELECT
    audit_id,
    facility_id,
    model_version,
    first_day,
    last_day,
    faces_drawn,
    created_at,
    finished_at,
    start_day,
    expiry_day
FROM fer.audit;

COMMENT ON VIEW fer.audit_public IS 'Audits: random samples of a facility''s faces that people label, one row each.';
COMMENT ON COLUMN fer.audit_public.audit_id IS 'Number of the audit, as in audit_id of satisfaction_daily';
COMMENT ON COLUMN fer.audit_public.facility_id IS 'Facility, as in the other views';
COMMENT ON COLUMN fer.audit_public.model_version IS 'Model version whose faces were drawn';
COMMENT ON COLUMN fer.audit_public.first_day IS 'First capture day of the window that the faces were drawn from';
COMMENT ON COLUMN fer.audit_public.last_day IS 'Last capture day of the window';
COMMENT ON COLUMN fer.audit_public.faces_drawn IS 'Faces that were drawn';
COMMENT ON COLUMN fer.audit_public.created_at IS 'When they were drawn';
COMMENT ON COLUMN fer.audit_public.finished_at IS 'When the labels were put into force; null: not finished';
COMMENT ON COLUMN fer.audit_public.start_day IS 'First capture day whose summaries it corrects';
COMMENT ON COLUMN fer.audit_public.expiry_day IS 'First capture day that it does not correct any more';
