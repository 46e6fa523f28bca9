-- Whom the cameras of a facility record and under which law, with the dates of the notice at the
-- entrance and of the impact assessment. They are empty until the next run copies the registry.

ALTER TABLE fer.facility
    ADD COLUMN audience text[] NOT NULL DEFAULT '{}',
    ADD COLUMN jurisdiction text CHECK (jurisdiction ~ '^[A-Z]{2}$'),
    ADD COLUMN permission_notice_day date,
    ADD COLUMN permission_assessment_day date;

COMMENT ON COLUMN fer.facility.audience IS 'Whom the cameras record, such as {customers}; empty: not recorded in the registry';
COMMENT ON COLUMN fer.facility.jurisdiction IS 'Country whose law applies (ISO 3166-1), or EU; null: not recorded in the registry';
COMMENT ON COLUMN fer.facility.permission_notice_day IS 'Day since which a notice at the entrance informs people. No earlier capture day is read';
COMMENT ON COLUMN fer.facility.permission_assessment_day IS 'Day of the impact assessment. No earlier capture day is read';
