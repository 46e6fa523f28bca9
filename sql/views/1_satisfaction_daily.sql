-- The newest revision of the summary of each facility and capture day. Every upgrade runs this file;
-- CREATE OR REPLACE keeps the grants on the view. A migration that removes or reorders columns must
-- drop the view first, because CREATE OR REPLACE cannot do that.
--
-- The view is published: where no rate is (method suppressed), it shows no counts of faces either.
-- The product reads them from satisfaction_summary.
CREATE OR REPLACE VIEW fer.satisfaction_daily AS
SELECT
    newest.facility_id,
    facility.name AS facility_name,
    newest.capture_day,
    newest.verdict,
    newest.happy_rate,
    newest.happy_rate_low,
    newest.happy_rate_high,
    newest.target_rate,
    newest.sad_rate,
    newest.sad_rate_low,
    newest.sad_rate_high,
    newest.neither_rate,
    newest.called_happy_rate,
    newest.called_happy_rate_low,
    newest.called_happy_rate_high,
    newest.called_sad_rate,
    newest.called_sad_rate_low,
    newest.called_sad_rate_high,
    newest.method,
    newest.is_complete,
    newest.is_below_expected,
    newest.images,
    CASE WHEN newest.method <> 'suppressed' THEN newest.images_scored END AS images_scored,
    newest.images_pending,
    newest.not_scored,
    -- The difference would be the faces of few late or erased images, or of a suppressed day.
    CASE WHEN newest.method <> 'suppressed' AND newest.faces_scored = newest.faces
        THEN newest.faces_scored END AS faces_scored,
    CASE WHEN newest.method <> 'suppressed' THEN newest.faces END AS faces,
    CASE WHEN newest.method <> 'suppressed' THEN newest.sessions END AS sessions,
    CASE WHEN newest.method <> 'suppressed' THEN newest.sessions_effective END AS sessions_effective,
    CASE WHEN newest.method <> 'suppressed' THEN newest.faces_effective END AS faces_effective,
    CASE WHEN newest.method <> 'suppressed' THEN newest.design_effect END AS design_effect,
    newest.session_rule,
    newest.benchmark_weight,
    CASE WHEN newest.method <> 'suppressed' THEN newest.faces_needed END AS faces_needed,
    newest.confidence,
    newest.time_zone,
    newest.model_version,
    newest.revision,
    newest.run_id,
    newest.created_at,
    newest.audit_id,
    newest.audit_labels,
    newest.reason,
    newest.method = 'local' AS is_comparable
FROM (
    SELECT DISTINCT ON (facility_id, capture_day) *
    FROM fer.satisfaction_summary
    WHERE period = 'day'
    ORDER BY facility_id, capture_day, revision DESC
) AS newest
JOIN fer.facility USING (facility_id);

COMMENT ON VIEW fer.satisfaction_daily IS 'Start here. One row per facility and capture day: the newest summary, whatever its model version.';
COMMENT ON COLUMN fer.satisfaction_daily.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.satisfaction_daily.facility_name IS 'Display name of the facility';
COMMENT ON COLUMN fer.satisfaction_daily.capture_day IS 'Calendar date in the keys of the images';
COMMENT ON COLUMN fer.satisfaction_daily.verdict IS 'satisfied: the interval of the happy rate is above the target. not satisfied: it is below. inconclusive: it contains the target. no target: the facility has none. no verdict: the rates are not corrected (method raw). pending: no rate is published before the day is complete or its lookback has ended. suppressed: too few faces or sessions to publish a rate, or the facility publishes by week';
COMMENT ON COLUMN fer.satisfaction_daily.happy_rate IS 'Share (0 to 1) of all faces that show a happy expression, corrected for the classifier''s errors; null: suppressed. Never quote it without its interval';
COMMENT ON COLUMN fer.satisfaction_daily.happy_rate_low IS 'Lower end of the 95 % interval of happy_rate';
COMMENT ON COLUMN fer.satisfaction_daily.happy_rate_high IS 'Upper end of the 95 % interval of happy_rate';
COMMENT ON COLUMN fer.satisfaction_daily.target_rate IS 'Target of the happy rate (0 to 1) that the verdict compares with; null: no target';
COMMENT ON COLUMN fer.satisfaction_daily.sad_rate IS 'Share (0 to 1) of all faces that show a sad expression, corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.sad_rate_low IS 'Lower end of the 95 % interval of sad_rate';
COMMENT ON COLUMN fer.satisfaction_daily.sad_rate_high IS 'Upper end of the 95 % interval of sad_rate';
COMMENT ON COLUMN fer.satisfaction_daily.neither_rate IS 'The rest: 1 - happy_rate - sad_rate; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.called_happy_rate IS 'Share (0 to 1) of all faces that were called happy, not corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.called_happy_rate_low IS 'Lower end of its 95 % interval, which covers chance and repeated pictures of one visit, not the classifier''s errors';
COMMENT ON COLUMN fer.satisfaction_daily.called_happy_rate_high IS 'Upper end of that interval';
COMMENT ON COLUMN fer.satisfaction_daily.called_sad_rate IS 'Share (0 to 1) of all faces that were called sad, not corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.called_sad_rate_low IS 'Lower end of its 95 % interval';
COMMENT ON COLUMN fer.satisfaction_daily.called_sad_rate_high IS 'Upper end of its 95 % interval';
COMMENT ON COLUMN fer.satisfaction_daily.method IS 'suppressed: no rate is published, see verdict. raw: not corrected, because the card of the CNN has no confusion matrix. benchmark: corrected by the confusion matrix in the card, and by the labels of an audit if audit_id names one. local: corrected by an audit of at least 200 labels of the facility''s own faces. wilson: of an earlier version, which published happy / (happy + sad); see former_figures in satisfaction_summary';
COMMENT ON COLUMN fer.satisfaction_daily.is_complete IS 'True: the images were listed after the local day had ended, each has a final outcome, at most 20 % are missing, archived or refused, and the last listing did not lack all stored images while its run found none of another day. False: the numbers may still change';
COMMENT ON COLUMN fer.satisfaction_daily.is_below_expected IS 'True: an open day with fewer images than expected; check the cameras first';
COMMENT ON COLUMN fer.satisfaction_daily.images IS 'All known images of the day: scored, not scored and pending';
COMMENT ON COLUMN fer.satisfaction_daily.images_scored IS 'Images in which faces were scored; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_daily.images_pending IS 'Images without a final outcome; the next run retries them';
COMMENT ON COLUMN fer.satisfaction_daily.not_scored IS 'Images with a final outcome other than scored, counted by outcome. As rows: view not_scored_daily';
COMMENT ON COLUMN fer.satisfaction_daily.faces_scored IS 'Faces in the scored images; pictures with the same content count once; null: no rate is published, or the rates are based on a few faces more or less, see faces';
COMMENT ON COLUMN fer.satisfaction_daily.faces IS 'Faces that the rates are based on. A published rate stays until the number of faces changed by 30 and, where sessions are known, their number by 10: until then faces_scored is null; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_daily.sessions IS 'Sessions or blocks that the faces were divided into; null: none, or no rate is published';
COMMENT ON COLUMN fer.satisfaction_daily.sessions_effective IS 'Sessions of equal size that would hold as much information; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_daily.faces_effective IS 'Independent faces that would hold as much information; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_daily.design_effect IS 'Faces that count as one independent face: faces / faces_effective; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_daily.session_rule IS 'gap: a session ends at a gap over 60 s of its camera or after 5 minutes. blocks: equal numbers of images in order of their keys. design effect: the setting design_effect of the facility';
COMMENT ON COLUMN fer.satisfaction_daily.benchmark_weight IS 'Share (0 to 1) of the card''s faces among those that the correction rests on; 1: no local audit';
COMMENT ON COLUMN fer.satisfaction_daily.faces_needed IS 'About how many faces at the same number of faces per session would make an inconclusive verdict conclusive at the same rate; null: no number would, the verdict is not inconclusive, or no rate is published';
COMMENT ON COLUMN fer.satisfaction_daily.confidence IS 'Confidence level of the intervals, such as 0.95';
COMMENT ON COLUMN fer.satisfaction_daily.time_zone IS 'IANA time zone that determined when the day ended';
COMMENT ON COLUMN fer.satisfaction_daily.model_version IS 'Model version whose results were counted, see table model_version';
COMMENT ON COLUMN fer.satisfaction_daily.revision IS 'Number of this summary of the day, from 1; older ones are in table satisfaction_summary';
COMMENT ON COLUMN fer.satisfaction_daily.run_id IS 'Run that wrote this summary';
COMMENT ON COLUMN fer.satisfaction_daily.created_at IS 'When this summary was written';
COMMENT ON COLUMN fer.satisfaction_daily.audit_id IS 'Audit whose labels correct the rates too, see view audit_public; null: none';
COMMENT ON COLUMN fer.satisfaction_daily.audit_labels IS 'Labeled faces of this audit that the correction rests on; null: none';
COMMENT ON COLUMN fer.satisfaction_daily.reason IS 'Why the revision was written, if somebody asked for it; empty: a run found that a number had changed';
COMMENT ON COLUMN fer.satisfaction_daily.is_comparable IS 'True: the rates are corrected by an audit of the facility''s own faces, so they may be compared with those of other facilities that have one. False: they are not comparable with other facilities, because the errors of the CNN differ between them; compare with the same facility only';
