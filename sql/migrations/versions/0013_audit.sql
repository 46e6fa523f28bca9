-- Audits: a random sample of a facility's faces, their labels by people, and what each model version
-- calls them. What identifies a face (key, ETag, box) is null once retention has dropped its day:
-- its labels then only count in the confusion matrix. No foreign key leads to the rows per image,
-- which are partitioned and replaced; erasure deletes the faces of an image here too.

CREATE TABLE fer.audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    facility_id text COLLATE "C" NOT NULL REFERENCES fer.facility,
    model_version text COLLATE "C" NOT NULL REFERENCES fer.model_version,
    first_day date NOT NULL,
    last_day date NOT NULL CHECK (last_day >= first_day),
    seed bigint NOT NULL,
    faces_in_window bigint NOT NULL CHECK (faces_in_window > 0),
    faces_drawn integer NOT NULL CHECK (faces_drawn BETWEEN 1 AND faces_in_window),
    reference jsonb CHECK (jsonb_typeof(reference) = 'object'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    finished_at timestamptz,
    finished_by text,
    start_day date,
    expiry_day date,
    UNIQUE (audit_id, facility_id),
    CHECK (num_nonnulls(finished_at, finished_by, start_day, expiry_day) IN (0, 4)),
    CHECK (expiry_day > start_day)
);
CREATE INDEX audit_facility ON fer.audit (facility_id);

CREATE TABLE fer.audit_face (
    audit_id bigint NOT NULL,
    face_number integer NOT NULL CHECK (face_number >= 1),
    facility_id text COLLATE "C" NOT NULL,
    capture_day date,
    image_key text COLLATE "C",
    member text COLLATE "C",
    etag text,
    size_bytes bigint CHECK (size_bytes >= 0),
    face_index smallint,
    box_x integer,
    box_y integer,
    box_width integer CHECK (box_width > 0),
    box_height integer CHECK (box_height > 0),
    session_number integer,
    PRIMARY KEY (audit_id, face_number),
    FOREIGN KEY (audit_id, facility_id) REFERENCES fer.audit (audit_id, facility_id)
        ON DELETE CASCADE,
    CHECK (num_nonnulls(capture_day, image_key, member, etag, size_bytes, face_index, box_x, box_y,
        box_width, box_height, session_number) IN (0, 11))
);
CREATE INDEX audit_face_image ON fer.audit_face (facility_id, capture_day, image_key);

CREATE TABLE fer.audit_result (
    audit_id bigint NOT NULL,
    face_number integer NOT NULL,
    facility_id text COLLATE "C" NOT NULL,
    model_version text COLLATE "C" NOT NULL CHECK (model_version ~ '^[0-9a-f]{64}$'),
    called_class text NOT NULL CHECK (called_class IN ('happy', 'sad', 'neither')),
    PRIMARY KEY (audit_id, model_version, face_number),
    FOREIGN KEY (audit_id, face_number) REFERENCES fer.audit_face ON DELETE CASCADE,
    FOREIGN KEY (audit_id, facility_id) REFERENCES fer.audit (audit_id, facility_id)
        ON DELETE CASCADE
);
CREATE INDEX audit_result_face ON fer.audit_result (audit_id, face_number);

CREATE TABLE fer.audit_label (
    audit_id bigint NOT NULL,
    face_number integer NOT NULL,
    facility_id text COLLATE "C" NOT NULL,
    rater text NOT NULL CHECK (rater <> ''),
    is_settlement boolean NOT NULL DEFAULT false,
    label text NOT NULL CHECK (label IN ('happy', 'sad', 'neither', 'cannot_tell')),
    labeled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    labeled_by text NOT NULL DEFAULT session_user,
    PRIMARY KEY (audit_id, face_number, rater, is_settlement),
    FOREIGN KEY (audit_id, face_number) REFERENCES fer.audit_face ON DELETE CASCADE,
    FOREIGN KEY (audit_id, facility_id) REFERENCES fer.audit (audit_id, facility_id)
        ON DELETE CASCADE
);
CREATE UNIQUE INDEX audit_label_settled ON fer.audit_label (audit_id, face_number)
    WHERE is_settlement;

-- The policies are in sql/roles/roles.sql. Without one, only the owner reads rows.
ALTER TABLE fer.audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE fer.audit_face ENABLE ROW LEVEL SECURITY;
ALTER TABLE fer.audit_result ENABLE ROW LEVEL SECURITY;
ALTER TABLE fer.audit_label ENABLE ROW LEVEL SECURITY;

ALTER TABLE fer.satisfaction_summary
    ADD COLUMN audit_id bigint,
    ADD COLUMN audit_labels integer CHECK (audit_labels > 0),
    ADD COLUMN reason text NOT NULL DEFAULT '',
    ADD CONSTRAINT satisfaction_summary_audit CHECK (
        num_nonnulls(audit_id, audit_labels) IN (0, 2)
        AND (audit_id IS NULL OR method IN ('benchmark', 'local')));

COMMENT ON TABLE fer.audit IS 'Audits: random samples of a facility''s faces that people label. From start_day on, an audit that is finished corrects the summaries of its facility';
COMMENT ON COLUMN fer.audit.audit_id IS 'Number of the audit, for fer-batch audit label, refresh and finish';
COMMENT ON COLUMN fer.audit.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.audit.model_version IS 'Model version whose faces were drawn';
COMMENT ON COLUMN fer.audit.first_day IS 'First capture day of the window that the faces were drawn from';
COMMENT ON COLUMN fer.audit.last_day IS 'Last capture day of the window';
COMMENT ON COLUMN fer.audit.seed IS 'Number that the draw and the raters'' orders follow from';
COMMENT ON COLUMN fer.audit.faces_in_window IS 'Faces of published results of the window; each was drawn with the probability faces_drawn / faces_in_window';
COMMENT ON COLUMN fer.audit.faces_drawn IS 'Faces that were drawn. Erasure may have deleted some of them since';
COMMENT ON COLUMN fer.audit.reference IS 'Distributions of the window that later days are compared with, to find drift; null: none';
COMMENT ON COLUMN fer.audit.created_at IS 'When the faces were drawn';
COMMENT ON COLUMN fer.audit.created_by IS 'Login that drew them';
COMMENT ON COLUMN fer.audit.finished_at IS 'When the labels were put into force; they do not change any more. Null: not finished';
COMMENT ON COLUMN fer.audit.finished_by IS 'Login that put them into force';
COMMENT ON COLUMN fer.audit.start_day IS 'First capture day whose summaries it corrects';
COMMENT ON COLUMN fer.audit.expiry_day IS 'First capture day that it does not correct any more';
COMMENT ON TABLE fer.audit_face IS 'The faces of an audit, one row each. Says which picture was labeled, never who is in it';
COMMENT ON COLUMN fer.audit_face.audit_id IS 'Audit, see table audit';
COMMENT ON COLUMN fer.audit_face.face_number IS 'Number of the face in its audit, from 1';
COMMENT ON COLUMN fer.audit_face.facility_id IS 'Facility of the audit';
COMMENT ON COLUMN fer.audit_face.capture_day IS 'Capture day of the image. This and all following columns are null once retention has dropped the day';
COMMENT ON COLUMN fer.audit_face.image_key IS 'S3 key of the image';
COMMENT ON COLUMN fer.audit_face.member IS 'Empty: the object itself is the image';
COMMENT ON COLUMN fer.audit_face.etag IS 'ETag of the content in which the face was found; another content is not shown to raters';
COMMENT ON COLUMN fer.audit_face.size_bytes IS 'Size of the object, in bytes';
COMMENT ON COLUMN fer.audit_face.face_index IS 'Number of the face in its image, from 0';
COMMENT ON COLUMN fer.audit_face.box_x IS 'Left edge of the face in the upright image, in pixels; may be outside it';
COMMENT ON COLUMN fer.audit_face.box_y IS 'Upper edge of the face in the upright image, in pixels; may be outside it';
COMMENT ON COLUMN fer.audit_face.box_width IS 'Width of the face, in pixels';
COMMENT ON COLUMN fer.audit_face.box_height IS 'Height of the face, in pixels';
COMMENT ON COLUMN fer.audit_face.session_number IS 'Number of the face''s session in the window, from 1';
COMMENT ON TABLE fer.audit_result IS 'What each model version calls the faces of an audit';
COMMENT ON COLUMN fer.audit_result.audit_id IS 'Audit, see table audit';
COMMENT ON COLUMN fer.audit_result.face_number IS 'Face, see table audit_face';
COMMENT ON COLUMN fer.audit_result.facility_id IS 'Facility of the audit';
COMMENT ON COLUMN fer.audit_result.model_version IS 'Model version: that of the draw, or one for which the audit was refreshed';
COMMENT ON COLUMN fer.audit_result.called_class IS 'happy, sad or neither: what this model version calls the face';
COMMENT ON TABLE fer.audit_label IS 'What people see in the faces of an audit: one row per face and rater';
COMMENT ON COLUMN fer.audit_label.audit_id IS 'Audit, see table audit';
COMMENT ON COLUMN fer.audit_label.face_number IS 'Face, see table audit_face';
COMMENT ON COLUMN fer.audit_label.facility_id IS 'Facility of the audit';
COMMENT ON COLUMN fer.audit_label.rater IS 'Name of the rater, as given on the command line';
COMMENT ON COLUMN fer.audit_label.is_settlement IS 'True: a later pass that settles a disagreement of two raters. It takes precedence';
COMMENT ON COLUMN fer.audit_label.label IS 'happy, sad, neither or cannot_tell, which counts as neither';
COMMENT ON COLUMN fer.audit_label.labeled_at IS 'When it was labeled';
COMMENT ON COLUMN fer.audit_label.labeled_by IS 'Login that stored the label';
COMMENT ON COLUMN fer.satisfaction_summary.audit_id IS 'Audit whose labels correct the rates too, see table audit; null: none';
COMMENT ON COLUMN fer.satisfaction_summary.audit_labels IS 'Labeled faces of this audit that the correction rests on; null: none';
COMMENT ON COLUMN fer.satisfaction_summary.reason IS 'Why the revision was written, if somebody asked for it; empty: a run found that a number had changed';
COMMENT ON COLUMN fer.satisfaction_summary.method IS 'suppressed: no rate is published, see verdict. raw: not corrected, because the card of the CNN has no confusion matrix. benchmark: corrected by the confusion matrix in the card, and by the labels of an audit if audit_id names one. local: corrected by an audit of at least 200 labels of the facility''s own faces. wilson: of an earlier version, which published happy / (happy + sad); see former_figures';
