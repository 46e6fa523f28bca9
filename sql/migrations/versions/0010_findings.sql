-- Findings with a history: a finding is a problem of a facility, from the first to the last capture
-- day that shows it. What each day shows, and which days were checked, is kept beside it. What the
-- table finding held before, a row per problem and day, becomes open findings; the next runs close
-- those that are over.

CREATE TEMPORARY TABLE former_finding ON COMMIT DROP AS
SELECT
    f.facility_id, f.capture_day, f.check_name, f.severity, f.meaning, f.finding, f.run_id,
    f.found_at,
    coalesce(
        CASE
            WHEN f.check_name IN ('frozen_camera', 'face_that_never_moves')
                THEN substring(f.finding FROM '^camera ([^:]+):')
            WHEN f.check_name = 'outcome_hits_many'
                THEN substring(f.finding FROM ' images are ([a-z_]+)')
            WHEN f.check_name = 'images_after_lookback'
                THEN substring(f.finding FROM ' images of ([-0-9]+);')
            WHEN f.check_name = 'images_on_closed_day'
                THEN to_char(f.capture_day, 'dy')
        END, '') AS subject,
    CASE
        WHEN f.check_name IN (
            'no_permission', 'images_after_lookback', 'invalid_in_registry')
            THEN 'later day'
        WHEN f.check_name = 'images_on_closed_day' THEN 'same weekday'
        WHEN f.check_name IN ('frozen_camera', 'face_that_never_moves') THEN 'same camera'
        WHEN f.check_name IN (
            'day_without_images', 'facility_without_images', 'fewer_images_than_expected',
            'many_images_not_scored', 'names_without_time', 'outcome_hits_many', 'thumbnails',
            'unsupported_files')
            THEN 'later images'
        ELSE 'same day'
    END AS closing_rule
FROM fer.finding AS f;

DROP TABLE fer.finding;

CREATE TABLE fer.finding (
    finding_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    facility_id text COLLATE "C" NOT NULL,
    check_name text NOT NULL,
    subject text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('error', 'warning')),
    meaning text NOT NULL,
    closing_rule text NOT NULL CHECK (closing_rule IN (
        'same day', 'later day', 'same weekday', 'later images', 'same camera', 'later figure',
        'later change')),
    first_day date NOT NULL,
    last_day date NOT NULL CHECK (last_day >= first_day),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'acknowledged', 'closed')),
    opened_at timestamptz NOT NULL DEFAULT now(),
    acknowledged_at timestamptz,
    acknowledged_by text CHECK (acknowledged_by <> ''),
    acknowledged_comment text,
    closed_at timestamptz,
    closed_by text CHECK (closed_by <> ''),
    closed_comment text,
    CHECK (
        num_nonnulls(acknowledged_at, acknowledged_by, acknowledged_comment) IN (0, 3)
        AND (state <> 'acknowledged' OR acknowledged_at IS NOT NULL)
        AND (state <> 'open' OR acknowledged_at IS NULL)),
    CHECK (
        (state = 'closed') = (closed_at IS NOT NULL)
        AND (state = 'closed') = (closed_comment IS NOT NULL)
        AND (state = 'closed' OR closed_by IS NULL))
);
-- At most one finding about a problem is not closed.
CREATE UNIQUE INDEX finding_not_closed ON fer.finding (facility_id, check_name, subject)
    WHERE state <> 'closed';
CREATE INDEX finding_problem ON fer.finding (facility_id, check_name, subject, last_day);

CREATE TABLE fer.finding_day (
    finding_id bigint NOT NULL REFERENCES fer.finding,
    capture_day date NOT NULL,
    details text NOT NULL,
    run_id text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (finding_id, capture_day)
);
CREATE INDEX finding_day_day ON fer.finding_day (capture_day);

CREATE TABLE fer.checked_day (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    run_id text NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (facility_id, capture_day)
);

INSERT INTO fer.checked_day (facility_id, capture_day, run_id, checked_at)
SELECT DISTINCT ON (facility_id, capture_day) facility_id, capture_day, run_id, found_at
FROM former_finding
WHERE check_name <> 'invalid_in_registry'
ORDER BY facility_id, capture_day, found_at DESC;

INSERT INTO fer.finding (
    facility_id, check_name, subject, severity, meaning, closing_rule, first_day, last_day,
    opened_at)
SELECT
    facility_id, check_name, subject,
    (array_agg(severity ORDER BY capture_day DESC))[1],
    (array_agg(meaning ORDER BY capture_day DESC))[1],
    closing_rule, min(capture_day), max(capture_day), min(found_at)
FROM former_finding
GROUP BY facility_id, check_name, subject, closing_rule
ORDER BY facility_id, check_name, subject;

INSERT INTO fer.finding_day (finding_id, capture_day, details, run_id, found_at)
SELECT
    f.finding_id, former.capture_day, string_agg(former.finding, '; ' ORDER BY former.finding),
    max(former.run_id), min(former.found_at)
FROM former_finding AS former
JOIN fer.finding AS f USING (facility_id, check_name, subject)
GROUP BY f.finding_id, former.capture_day;

-- The newest summaries of days and weeks that an alert may be about: published, with enough faces
-- and sessions.
CREATE FUNCTION fer.alert_figure(
    facility_ids text[], from_day date, to_day date, min_faces integer, min_sessions integer)
RETURNS SETOF fer.satisfaction_summary
LANGUAGE sql STABLE PARALLEL SAFE
AS $body$
    SELECT newest.*
    FROM (
        SELECT DISTINCT ON (s.facility_id, s.period, s.capture_day) s.*
        FROM fer.satisfaction_summary AS s
        WHERE s.facility_id = ANY(alert_figure.facility_ids)
            AND s.period IN ('day', 'week')
            AND s.capture_day BETWEEN alert_figure.from_day AND alert_figure.to_day
        ORDER BY s.facility_id, s.period, s.capture_day, s.revision DESC
    ) AS newest
    WHERE newest.method IN ('raw', 'benchmark', 'local')
        AND newest.faces >= alert_figure.min_faces
        AND (newest.sessions IS NULL OR newest.sessions >= alert_figure.min_sessions)
$body$;

-- The images of some days, each with its outcome. A view could not have the model version as a
-- parameter, and would read the results of all days: the condition on the day must be written for
-- both tables. PostgreSQL inlines the function.
CREATE FUNCTION fer.image_outcome(
    facility_ids text[], capture_days date[], wanted_version text)
RETURNS TABLE (
    facility_id text, capture_day date, image_key text, etag text, listed_at timestamptz,
    outcome text, reason text, result_etag text, scored_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE
AS $body$
    SELECT
        i.facility_id, i.capture_day, i.image_key, i.etag, i.listed_at,
        r.outcome, r.reason, r.etag, r.scored_at
    FROM fer.image AS i
    LEFT JOIN fer.image_result AS r
        ON r.facility_id = i.facility_id
        AND r.capture_day = i.capture_day
        AND r.capture_day = ANY(image_outcome.capture_days)
        AND r.image_key = i.image_key
        AND r.member = i.member
        AND r.etag = i.etag
        AND r.model_version = image_outcome.wanted_version
    WHERE i.facility_id = ANY(image_outcome.facility_ids)
        AND i.capture_day = ANY(image_outcome.capture_days)
$body$;

COMMENT ON TABLE fer.finding IS 'Problems that the data checks found, one row for each from its first to its last day. A problem that returns after it was closed is a new row';
COMMENT ON COLUMN fer.finding.finding_id IS 'Number of the finding, for fer-batch findings ack and close';
COMMENT ON COLUMN fer.finding.facility_id IS 'Facility; one with an invalid entry in the registry may be missing in the table facility';
COMMENT ON COLUMN fer.finding.check_name IS 'Name of the check, such as frozen_camera';
COMMENT ON COLUMN fer.finding.subject IS 'What of the facility the problem is about, such as a camera, an outcome or a period; empty: the facility';
COMMENT ON COLUMN fer.finding.severity IS 'error or warning';
COMMENT ON COLUMN fer.finding.meaning IS 'What a finding of this check means';
COMMENT ON COLUMN fer.finding.closing_rule IS 'What closes the finding, if it does not show the problem. same day: a new check of each day that shows it. later day: a check of a later day. same weekday: of the same weekday later. later images: of a later open and complete day with images. same camera: of such a day with images of the camera. later figure: of a later published figure of enough faces and sessions. later change: of a later change of such figures';
COMMENT ON COLUMN fer.finding.first_day IS 'First capture day that showed the problem';
COMMENT ON COLUMN fer.finding.last_day IS 'Last capture day that showed the problem';
COMMENT ON COLUMN fer.finding.state IS 'open: needs attention. acknowledged: somebody takes care of it; it is listed but not announced. closed: over';
COMMENT ON COLUMN fer.finding.opened_at IS 'When the problem was first found';
COMMENT ON COLUMN fer.finding.acknowledged_at IS 'When it was acknowledged; null: never';
COMMENT ON COLUMN fer.finding.acknowledged_by IS 'Who acknowledged it';
COMMENT ON COLUMN fer.finding.acknowledged_comment IS 'The comment of the acknowledgment';
COMMENT ON COLUMN fer.finding.closed_at IS 'When it was closed; null: it is not';
COMMENT ON COLUMN fer.finding.closed_by IS 'Who closed it; null: a run, or it is not closed';
COMMENT ON COLUMN fer.finding.closed_comment IS 'Why it was closed: the comment of the person, or the reason of the run';
COMMENT ON TABLE fer.finding_day IS 'The capture days that show a finding, by the newest check of each day. A day that does not show it any more has no row';
COMMENT ON COLUMN fer.finding_day.finding_id IS 'Finding, see table finding';
COMMENT ON COLUMN fer.finding_day.capture_day IS 'Capture day';
COMMENT ON COLUMN fer.finding_day.details IS 'The details of that day, which may name the key of an image; empty after an image of the day was erased';
COMMENT ON COLUMN fer.finding_day.run_id IS 'Run that checked the day last';
COMMENT ON COLUMN fer.finding_day.found_at IS 'When the day was first found to show it';
COMMENT ON TABLE fer.checked_day IS 'The capture days of which a run has stored the findings, if only that there are none. A finding is closed by days that were checked';
COMMENT ON COLUMN fer.checked_day.facility_id IS 'Facility';
COMMENT ON COLUMN fer.checked_day.capture_day IS 'Capture day';
COMMENT ON COLUMN fer.checked_day.run_id IS 'Run that checked the day last';
COMMENT ON COLUMN fer.checked_day.checked_at IS 'When it stored the findings';
COMMENT ON FUNCTION fer.alert_figure IS 'The newest summaries of days and weeks that are published and have so many faces and sessions; a summary without known sessions counts. Alerts are about these only';
COMMENT ON FUNCTION fer.image_outcome IS 'The listed images of some facilities and days, each with the outcome by a model version of its current content; null: it has none yet';
COMMENT ON COLUMN fer.satisfaction_summary.is_complete IS 'True: the images were listed after the local day had ended, each has a final outcome, at most 20 % are missing, archived or refused, and the last listing did not lack all stored images while its run found none of another day; of a longer period: each of its days is complete';
