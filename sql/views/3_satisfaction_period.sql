-- The newest revision of the summaries of weeks and of four weeks; the days are in
-- satisfaction_daily. As there, no counts of faces where no rate is published.
CREATE OR REPLACE VIEW fer.satisfaction_period AS
SELECT
    newest.facility_id,
    facility.name AS facility_name,
    newest.period,
    newest.first_day,
    newest.capture_day AS last_day,
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
    SELECT DISTINCT ON (facility_id, period, capture_day) *
    FROM fer.satisfaction_summary
    WHERE period <> 'day'
    ORDER BY facility_id, period, capture_day, revision DESC
) AS newest
JOIN fer.facility USING (facility_id);

COMMENT ON VIEW fer.satisfaction_period IS 'One row per facility and ISO week, or four complete ISO weeks: the newest summary. It is made of the published shorter periods only; a week of a facility that publishes by week, of all its days.';
COMMENT ON COLUMN fer.satisfaction_period.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.satisfaction_period.facility_name IS 'Display name of the facility';
COMMENT ON COLUMN fer.satisfaction_period.period IS 'week: ISO week, Monday to Sunday. four weeks: four complete ISO weeks';
COMMENT ON COLUMN fer.satisfaction_period.first_day IS 'First day of the period, a Monday';
COMMENT ON COLUMN fer.satisfaction_period.last_day IS 'Last day of the period, a Sunday';
COMMENT ON COLUMN fer.satisfaction_period.verdict IS 'satisfied: the interval of the happy rate is above the target. not satisfied: it is below. inconclusive: it contains the target. no target: the facility has none. no verdict: the rates are not corrected (method raw). pending: no rate is published before the day is complete or its lookback has ended. suppressed: too few faces or sessions to publish a rate, or the facility publishes by week';
COMMENT ON COLUMN fer.satisfaction_period.happy_rate IS 'Share (0 to 1) of all faces that show a happy expression, corrected for the classifier''s errors; null: suppressed. Never quote it without its interval';
COMMENT ON COLUMN fer.satisfaction_period.happy_rate_low IS 'Lower end of the 95 % interval of happy_rate';
COMMENT ON COLUMN fer.satisfaction_period.happy_rate_high IS 'Upper end of the 95 % interval of happy_rate';
COMMENT ON COLUMN fer.satisfaction_period.target_rate IS 'Target of the happy rate (0 to 1) that the verdict compares with; null: no target';
COMMENT ON COLUMN fer.satisfaction_period.sad_rate IS 'Share (0 to 1) of all faces that show a sad expression, corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_period.sad_rate_low IS 'Lower end of the 95 % interval of sad_rate';
COMMENT ON COLUMN fer.satisfaction_period.sad_rate_high IS 'Upper end of the 95 % interval of sad_rate';
COMMENT ON COLUMN fer.satisfaction_period.neither_rate IS 'The rest: 1 - happy_rate - sad_rate; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_period.called_happy_rate IS 'Share (0 to 1) of all faces that were called happy, not corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_period.called_happy_rate_low IS 'Lower end of its 95 % interval, which covers chance and repeated pictures of one visit, not the classifier''s errors';
COMMENT ON COLUMN fer.satisfaction_period.called_happy_rate_high IS 'Upper end of that interval';
COMMENT ON COLUMN fer.satisfaction_period.called_sad_rate IS 'Share (0 to 1) of all faces that were called sad, not corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_period.called_sad_rate_low IS 'Lower end of its 95 % interval';
COMMENT ON COLUMN fer.satisfaction_period.called_sad_rate_high IS 'Upper end of its 95 % interval';
COMMENT ON COLUMN fer.satisfaction_period.method IS 'suppressed: no rate is published, see verdict. raw: not corrected, because the card of the CNN has no confusion matrix. benchmark: corrected by the confusion matrix in the card, and by the labels of an audit if audit_id names one. local: corrected by an audit of at least 200 labels of the facility''s own faces. wilson: of an earlier version, which published happy / (happy + sad); see former_figures in satisfaction_summary';
COMMENT ON COLUMN fer.satisfaction_period.is_complete IS 'True: each day of the period is complete';
COMMENT ON COLUMN fer.satisfaction_period.is_below_expected IS 'True: on an open day fewer images than expected were found';
COMMENT ON COLUMN fer.satisfaction_period.images IS 'All known images of the period: scored, not scored and pending';
COMMENT ON COLUMN fer.satisfaction_period.images_scored IS 'Images in which faces were scored; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_period.images_pending IS 'Images without a final outcome; the next run retries them';
COMMENT ON COLUMN fer.satisfaction_period.not_scored IS 'Images with a final outcome other than scored, counted by outcome';
COMMENT ON COLUMN fer.satisfaction_period.faces_scored IS 'Faces in the scored images; pictures with the same content count once; null: no rate is published, or the rates are based on other faces: those of published shorter periods';
COMMENT ON COLUMN fer.satisfaction_period.faces IS 'Faces of these shorter periods, on which the rates are based. A published rate stays until the number of faces changed by 30 and, where sessions are known, their number by 10: until then faces_scored is null; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_period.sessions IS 'Sessions or blocks that the faces were divided into; null: none, or no rate is published';
COMMENT ON COLUMN fer.satisfaction_period.sessions_effective IS 'Sessions of equal size that would hold as much information; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_period.faces_effective IS 'Independent faces that would hold as much information; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_period.design_effect IS 'Faces that count as one independent face: faces / faces_effective; null: no rate is published';
COMMENT ON COLUMN fer.satisfaction_period.session_rule IS 'gap: a session ends at a gap over 60 s of its camera or after 5 minutes. blocks: equal numbers of images in order of their keys. design effect: the setting design_effect of the facility';
COMMENT ON COLUMN fer.satisfaction_period.benchmark_weight IS 'Share (0 to 1) of the card''s faces among those that the correction rests on; 1: no local audit';
COMMENT ON COLUMN fer.satisfaction_period.faces_needed IS 'About how many faces at the same number of faces per session would make an inconclusive verdict conclusive at the same rate; null: no number would, the verdict is not inconclusive, or no rate is published';
COMMENT ON COLUMN fer.satisfaction_period.confidence IS 'Confidence level of the intervals, such as 0.95';
COMMENT ON COLUMN fer.satisfaction_period.time_zone IS 'IANA time zone that determined when the day ended';
COMMENT ON COLUMN fer.satisfaction_period.model_version IS 'Model version whose results were counted, see table model_version';
COMMENT ON COLUMN fer.satisfaction_period.revision IS 'Number of this summary of the period, from 1; older ones are in table satisfaction_summary';
COMMENT ON COLUMN fer.satisfaction_period.run_id IS 'Run that wrote this summary';
COMMENT ON COLUMN fer.satisfaction_period.created_at IS 'When this summary was written';
COMMENT ON COLUMN fer.satisfaction_period.audit_id IS 'Audit whose labels correct the rates too, see view audit_public; null: none';
COMMENT ON COLUMN fer.satisfaction_period.audit_labels IS 'Labeled faces of this audit that the correction rests on; null: none';
COMMENT ON COLUMN fer.satisfaction_period.reason IS 'Why the revision was written, if somebody asked for it; empty: a run found that a number had changed';
COMMENT ON COLUMN fer.satisfaction_period.is_comparable IS 'True: the rates are corrected by an audit of the facility''s own faces, so they may be compared with those of other facilities that have one. False: they are not comparable with other facilities, because the errors of the CNN differ between them; compare with the same facility only';
