-- What the report shows: groups of facilities, the faces by hour and the images by camera of a day,
-- and the findings of the data checks. Summaries of earlier versions have neither hours nor cameras.

ALTER TABLE fer.facility ADD COLUMN group_name text CHECK (group_name <> '');

ALTER TABLE fer.satisfaction_summary
    ADD COLUMN hours jsonb CHECK (period = 'day' OR hours IS NULL),
    ADD COLUMN cameras jsonb CHECK (period = 'day' OR cameras IS NULL);

CREATE TABLE fer.finding (
    finding_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    check_name text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('error', 'warning')),
    meaning text NOT NULL,
    finding text NOT NULL,
    run_id text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX finding_facility_day ON fer.finding (facility_id, capture_day);

COMMENT ON COLUMN fer.facility.group_name IS 'Group of the facility, such as an area or a brand; the report has a section and a total for each group. Null: none';
COMMENT ON COLUMN fer.satisfaction_summary.hours IS 'Faces of the day by local hour, as {"9": [called happy, called sad, called neither, sessions]}. For weekday and hour in the report, which suppresses small cells. Null: the capture times of the images are not known, or not a day';
COMMENT ON COLUMN fer.satisfaction_summary.cameras IS 'Images of the day by camera, as {"till": 310}. Null: the keys name no camera, or not a day';
COMMENT ON TABLE fer.finding IS 'What the data checks found in the newest run of each facility and capture day. The rows of a day are replaced by its next run';
COMMENT ON COLUMN fer.finding.finding_id IS 'Number of the row';
COMMENT ON COLUMN fer.finding.facility_id IS 'Facility; one with an invalid entry in the registry may be missing in the table facility';
COMMENT ON COLUMN fer.finding.capture_day IS 'Capture day';
COMMENT ON COLUMN fer.finding.check_name IS 'Name of the check, such as frozen_camera';
COMMENT ON COLUMN fer.finding.severity IS 'error or warning';
COMMENT ON COLUMN fer.finding.meaning IS 'What a finding of this check means';
COMMENT ON COLUMN fer.finding.finding IS 'The details';
COMMENT ON COLUMN fer.finding.run_id IS 'Run that checked the day';
COMMENT ON COLUMN fer.finding.found_at IS 'When it was found';
