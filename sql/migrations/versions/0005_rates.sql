-- Called classes of faces and images, corrected rates with their totals, periods, and targets of
-- the happy rate. Stored results get the called class that their model version's threshold gave
-- them. Figures of the method wilson stay with their summaries, in former_figures.

DROP VIEW IF EXISTS fer.not_scored_daily;
DROP VIEW IF EXISTS fer.satisfaction_daily;


-- ------------------------------------------------------------------ results
-- A generated column fills itself in one pass over the table; without its expression it is an
-- ordinary column, which is what a forced choice by other probabilities than the stored ones needs.
ALTER TABLE fer.face_result ADD COLUMN called_class text GENERATED ALWAYS AS (
    CASE
        WHEN is_uncertain THEN 'neither'
        WHEN p_happy >= p_sad THEN 'happy'
        ELSE 'sad'
    END
) STORED CHECK (called_class IN ('happy', 'sad', 'neither'));
ALTER TABLE fer.face_result ALTER COLUMN called_class DROP EXPRESSION;
ALTER TABLE fer.face_result ALTER COLUMN called_class SET NOT NULL;
ALTER TABLE fer.face_result ALTER COLUMN emotion DROP EXPRESSION;
ALTER TABLE fer.face_result DROP COLUMN is_uncertain;

ALTER TABLE fer.image_result ADD COLUMN called_class text GENERATED ALWAYS AS (
    CASE
        WHEN p_happy IS NULL THEN NULL
        WHEN is_uncertain THEN 'neither'
        WHEN p_happy >= p_sad THEN 'happy'
        ELSE 'sad'
    END
) STORED CHECK (called_class IN ('happy', 'sad', 'neither'));
ALTER TABLE fer.image_result ALTER COLUMN called_class DROP EXPRESSION;
ALTER TABLE fer.image_result ALTER COLUMN emotion DROP EXPRESSION;
ALTER TABLE fer.image_result DROP COLUMN is_uncertain;
ALTER TABLE fer.image_result ADD CONSTRAINT image_result_scored_is_whole CHECK (
    num_nonnulls(p_happy, p_sad, p_neither, emotion, called_class)
    = CASE WHEN outcome = 'scored' THEN 5 ELSE 0 END);

COMMENT ON COLUMN fer.face_result.emotion IS 'Happy or Sad: the forced choice between the two, by the CNN''s own probabilities';
COMMENT ON COLUMN fer.face_result.called_class IS 'happy, sad or neither: what the face is counted as, by the rule in the manifest of the model version';
COMMENT ON COLUMN fer.face_result.p_happy IS 'Estimated share (0 to 1) of people who would call the face happy';
COMMENT ON COLUMN fer.face_result.p_sad IS 'Estimated share (0 to 1) of people who would call the face sad';
COMMENT ON COLUMN fer.face_result.p_neither IS 'Estimated share (0 to 1) of people who would call the face anything else; the three sum to 1';
COMMENT ON COLUMN fer.image_result.emotion IS 'Happy or Sad: the forced choice between the two, by the mean of the CNN''s own probabilities over its faces; null: not scored';
COMMENT ON COLUMN fer.image_result.called_class IS 'happy, sad or neither: the rule in the manifest, applied to the means of this row; null: not scored';
COMMENT ON COLUMN fer.image_result.p_happy IS 'Mean of p_happy over its faces; null: not scored';
COMMENT ON COLUMN fer.image_result.p_sad IS 'Mean of p_sad over its faces; null: not scored';
COMMENT ON COLUMN fer.image_result.p_neither IS 'Mean of p_neither over its faces; the three sum to 1; null: not scored';


-- ------------------------------------------------------------------ facilities
ALTER TABLE fer.facility DROP COLUMN target_share;
ALTER TABLE fer.facility
    ADD COLUMN target_rate double precision CHECK (target_rate BETWEEN 0 AND 1),
    ADD COLUMN publish_period text NOT NULL DEFAULT 'day' CHECK (publish_period IN ('day', 'week')),
    ADD COLUMN key_order text NOT NULL DEFAULT 'time' CHECK (key_order IN ('time', 'none')),
    ADD COLUMN design_effect double precision NOT NULL DEFAULT 6 CHECK (design_effect >= 1);
COMMENT ON COLUMN fer.facility.target_rate IS 'Happy rate (0 to 1) that the facility aims for; null: no target, so no verdict';
COMMENT ON COLUMN fer.facility.publish_period IS 'Shortest period whose rates are published: day or week';
COMMENT ON COLUMN fer.facility.key_order IS 'time: sorting the keys of a day sorts its images by camera or time. none: names are random';
COMMENT ON COLUMN fer.facility.design_effect IS 'How many faces count as one independent face if key_order is none';


-- ------------------------------------------------------------------ summaries
ALTER TABLE fer.satisfaction_summary DROP CONSTRAINT satisfaction_summary_pkey;
ALTER TABLE fer.satisfaction_summary
    ADD COLUMN period text NOT NULL DEFAULT 'day' CHECK (period IN ('day', 'week', 'four weeks')),
    ADD COLUMN first_day date,
    ADD COLUMN method text,
    ADD COLUMN target_rate double precision CHECK (target_rate BETWEEN 0 AND 1),
    ADD COLUMN faces_scored bigint CHECK (faces_scored >= 0),
    ADD COLUMN called_happy bigint CHECK (called_happy >= 0),
    ADD COLUMN called_sad bigint CHECK (called_sad >= 0),
    ADD COLUMN called_neither bigint CHECK (called_neither >= 0),
    ADD COLUMN happy_rate double precision,
    ADD COLUMN happy_rate_low double precision,
    ADD COLUMN happy_rate_high double precision,
    ADD COLUMN sad_rate double precision,
    ADD COLUMN sad_rate_low double precision,
    ADD COLUMN sad_rate_high double precision,
    ADD COLUMN neither_rate double precision,
    ADD COLUMN called_happy_rate double precision,
    ADD COLUMN called_happy_rate_low double precision,
    ADD COLUMN called_happy_rate_high double precision,
    ADD COLUMN called_sad_rate double precision,
    ADD COLUMN called_sad_rate_low double precision,
    ADD COLUMN called_sad_rate_high double precision,
    ADD COLUMN sessions bigint CHECK (sessions >= 0),
    ADD COLUMN sessions_effective double precision CHECK (sessions_effective >= 0),
    ADD COLUMN faces_effective double precision CHECK (faces_effective >= 0),
    ADD COLUMN design_effect double precision CHECK (design_effect >= 1),
    ADD COLUMN session_rule text CHECK (session_rule IN ('gap', 'blocks', 'design effect')),
    ADD COLUMN faces_needed bigint CHECK (faces_needed > 0),
    ADD COLUMN benchmark_weight double precision CHECK (benchmark_weight BETWEEN 0 AND 1),
    ADD COLUMN totals jsonb CHECK (jsonb_typeof(totals) = 'object'),
    ADD COLUMN former_figures jsonb CHECK (jsonb_typeof(former_figures) = 'object');

UPDATE fer.satisfaction_summary SET
    first_day = capture_day,
    faces_scored = faces,
    method = interval_method,
    former_figures = jsonb_build_object(
        'target_share', target_share,
        'happy', happy,
        'sad', sad,
        'uncertain', uncertain,
        'neither', neither,
        'happy_share', happy_share,
        'happy_share_low', happy_share_low,
        'happy_share_high', happy_share_high,
        'uncertain_share', uncertain_share,
        'neither_share', neither_share);

ALTER TABLE fer.satisfaction_summary
    DROP COLUMN target_share,
    DROP COLUMN happy,
    DROP COLUMN sad,
    DROP COLUMN uncertain,
    DROP COLUMN neither,
    DROP COLUMN happy_share,
    DROP COLUMN happy_share_low,
    DROP COLUMN happy_share_high,
    DROP COLUMN uncertain_share,
    DROP COLUMN neither_share,
    DROP COLUMN interval_method,
    DROP CONSTRAINT satisfaction_summary_verdict_check;
ALTER TABLE fer.satisfaction_summary ALTER COLUMN period DROP DEFAULT;
ALTER TABLE fer.satisfaction_summary ALTER COLUMN first_day SET NOT NULL;
ALTER TABLE fer.satisfaction_summary ALTER COLUMN method SET NOT NULL;
ALTER TABLE fer.satisfaction_summary ALTER COLUMN faces_scored SET NOT NULL;
ALTER TABLE fer.satisfaction_summary
    ADD PRIMARY KEY (facility_id, period, capture_day, revision),
    ADD CONSTRAINT satisfaction_summary_first_day CHECK (
        capture_day - first_day
        = CASE period WHEN 'day' THEN 0 WHEN 'week' THEN 6 ELSE 27 END),
    ADD CONSTRAINT satisfaction_summary_method_check CHECK (
        method IN ('suppressed', 'raw', 'benchmark', 'local', 'wilson')),
    ADD CONSTRAINT satisfaction_summary_verdict_check CHECK (verdict IN (
        'satisfied', 'not satisfied', 'inconclusive', 'no target', 'no verdict', 'pending',
        'suppressed')),
    ADD CONSTRAINT satisfaction_summary_rates_are_whole CHECK (
        num_nonnulls(happy_rate, happy_rate_low, happy_rate_high, sad_rate, sad_rate_low,
            sad_rate_high, neither_rate, called_happy_rate, called_happy_rate_low,
            called_happy_rate_high, called_sad_rate, called_sad_rate_low, called_sad_rate_high)
        = CASE WHEN method IN ('raw', 'benchmark', 'local') THEN 13 ELSE 0 END),
    ADD CONSTRAINT satisfaction_summary_rates_are_ordered CHECK (
        0 <= happy_rate_low AND happy_rate_low <= happy_rate
        AND happy_rate <= happy_rate_high AND happy_rate_high <= 1
        AND 0 <= sad_rate_low AND sad_rate_low <= sad_rate
        AND sad_rate <= sad_rate_high AND sad_rate_high <= 1
        AND neither_rate BETWEEN 0 AND 1),
    ADD CONSTRAINT satisfaction_summary_called_are_all CHECK (
        called_happy + called_sad + called_neither = faces),
    ADD CONSTRAINT satisfaction_summary_is_of_one_method CHECK (
        (former_figures IS NOT NULL) = (method = 'wilson')
        AND num_nonnulls(called_happy, called_sad, called_neither, totals)
        = CASE WHEN method = 'wilson' THEN 0 ELSE 4 END);


-- ------------------------------------------------------------------ changes
CREATE TABLE fer.satisfaction_change (
    facility_id text COLLATE "C" NOT NULL REFERENCES fer.facility,
    period text NOT NULL CHECK (period IN ('day', 'week', 'four weeks')),
    capture_day date NOT NULL,
    comparison text NOT NULL CHECK (comparison IN ('period before', 'week before')),
    happy_change double precision NOT NULL,
    happy_change_low double precision NOT NULL,
    happy_change_high double precision NOT NULL,
    happy_p_value double precision NOT NULL CHECK (happy_p_value BETWEEN 0 AND 1),
    happy_q_value double precision CHECK (happy_q_value BETWEEN 0 AND 1),
    sad_change double precision NOT NULL,
    sad_change_low double precision NOT NULL,
    sad_change_high double precision NOT NULL,
    sad_p_value double precision NOT NULL CHECK (sad_p_value BETWEEN 0 AND 1),
    sad_q_value double precision CHECK (sad_q_value BETWEEN 0 AND 1),
    run_id text NOT NULL,
    PRIMARY KEY (facility_id, period, capture_day, comparison)
);
CREATE INDEX satisfaction_change_capture_day ON fer.satisfaction_change (capture_day);
COMMENT ON TABLE fer.satisfaction_change IS 'One row per period and comparison with an earlier one: how the rates changed. Both periods are published, of one method and one model version.';
COMMENT ON COLUMN fer.satisfaction_change.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.satisfaction_change.period IS 'day, week or four weeks, see satisfaction_summary';
COMMENT ON COLUMN fer.satisfaction_change.capture_day IS 'Last day of the later period';
COMMENT ON COLUMN fer.satisfaction_change.comparison IS 'period before: the day, week or four weeks before. week before: the same weekday a week ago';
COMMENT ON COLUMN fer.satisfaction_change.happy_change IS 'happy_rate of the later period minus that of the earlier one, -1 to 1';
COMMENT ON COLUMN fer.satisfaction_change.happy_change_low IS 'Lower end of its 95 % interval. The classifier''s errors are the same in both periods and mostly cancel';
COMMENT ON COLUMN fer.satisfaction_change.happy_change_high IS 'Upper end of that interval';
COMMENT ON COLUMN fer.satisfaction_change.happy_p_value IS 'Two-sided p value of no change';
COMMENT ON COLUMN fer.satisfaction_change.happy_q_value IS 'q value over the facilities of the same day (Benjamini and Hochberg 1995): of the changes with q <= 0.05, on average at most 5 % are false';
COMMENT ON COLUMN fer.satisfaction_change.sad_change IS 'sad_rate of the later period minus that of the earlier one, -1 to 1';
COMMENT ON COLUMN fer.satisfaction_change.sad_change_low IS 'Lower end of its 95 % interval';
COMMENT ON COLUMN fer.satisfaction_change.sad_change_high IS 'Upper end of its 95 % interval';
COMMENT ON COLUMN fer.satisfaction_change.sad_p_value IS 'Two-sided p value of no change';
COMMENT ON COLUMN fer.satisfaction_change.sad_q_value IS 'q value over the facilities of the same day';
COMMENT ON COLUMN fer.satisfaction_change.run_id IS 'Run that wrote this row';


-- ------------------------------------------------------------------ comments
COMMENT ON COLUMN fer.satisfaction_summary.period IS 'Length of the period: day, week (ISO week, Monday to Sunday) or four weeks (complete ISO weeks)';
COMMENT ON COLUMN fer.satisfaction_summary.first_day IS 'First day of the period';
COMMENT ON COLUMN fer.satisfaction_summary.method IS 'suppressed: no rate is published, see verdict. raw: not corrected, because the card of the CNN has no confusion matrix. benchmark: corrected by the confusion matrix in the card. local: corrected by audits of the facility too. wilson: of an earlier version, which published happy / (happy + sad); see former_figures';
COMMENT ON COLUMN fer.satisfaction_summary.target_rate IS 'Target of the happy rate (0 to 1) that the verdict compares with; null: no target';
COMMENT ON COLUMN fer.satisfaction_summary.faces_scored IS 'Faces in the scored images; pictures with the same content count once';
COMMENT ON COLUMN fer.satisfaction_summary.called_happy IS 'Faces called happy; not for publication';
COMMENT ON COLUMN fer.satisfaction_summary.called_sad IS 'Faces called sad; not for publication';
COMMENT ON COLUMN fer.satisfaction_summary.called_neither IS 'Faces called neither; not for publication';
COMMENT ON COLUMN fer.satisfaction_summary.happy_rate IS 'Share (0 to 1) of all faces that show a happy expression, corrected for the classifier''s errors; null: suppressed. Never quote it without its interval';
COMMENT ON COLUMN fer.satisfaction_summary.happy_rate_low IS 'Lower end of the 95 % interval of happy_rate';
COMMENT ON COLUMN fer.satisfaction_summary.happy_rate_high IS 'Upper end of the 95 % interval of happy_rate';
COMMENT ON COLUMN fer.satisfaction_summary.sad_rate IS 'Share (0 to 1) of all faces that show a sad expression, corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_summary.sad_rate_low IS 'Lower end of the 95 % interval of sad_rate';
COMMENT ON COLUMN fer.satisfaction_summary.sad_rate_high IS 'Upper end of the 95 % interval of sad_rate';
COMMENT ON COLUMN fer.satisfaction_summary.neither_rate IS 'The rest: 1 - happy_rate - sad_rate; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_summary.called_happy_rate IS 'Share (0 to 1) of all faces that were called happy, not corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_summary.called_happy_rate_low IS 'Lower end of its 95 % interval, which covers chance and repeated pictures of one visit, not the classifier''s errors';
COMMENT ON COLUMN fer.satisfaction_summary.called_happy_rate_high IS 'Upper end of that interval';
COMMENT ON COLUMN fer.satisfaction_summary.called_sad_rate IS 'Share (0 to 1) of all faces that were called sad, not corrected; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_summary.called_sad_rate_low IS 'Lower end of its 95 % interval';
COMMENT ON COLUMN fer.satisfaction_summary.called_sad_rate_high IS 'Upper end of its 95 % interval';
COMMENT ON COLUMN fer.satisfaction_summary.sessions IS 'Sessions or blocks that the faces were divided into; null: none';
COMMENT ON COLUMN fer.satisfaction_summary.sessions_effective IS 'Sessions of equal size that would hold as much information';
COMMENT ON COLUMN fer.satisfaction_summary.faces_effective IS 'Independent faces that would hold as much information';
COMMENT ON COLUMN fer.satisfaction_summary.design_effect IS 'Faces that count as one independent face: faces / faces_effective';
COMMENT ON COLUMN fer.satisfaction_summary.session_rule IS 'gap: a session ends at a gap over 60 s of its camera or after 5 minutes. blocks: equal numbers of images in order of their keys. design effect: the setting design_effect of the facility';
COMMENT ON COLUMN fer.satisfaction_summary.benchmark_weight IS 'Share (0 to 1) of the card''s faces among those that the correction rests on; 1: no local audit';
COMMENT ON COLUMN fer.satisfaction_summary.faces_needed IS 'About how many faces at the same number of faces per session would make an inconclusive verdict conclusive at the same rate; null: no number would, or the verdict is not inconclusive';
COMMENT ON COLUMN fer.satisfaction_summary.totals IS 'Sums over sessions (gap) and blocks of a period: number of clusters, called counts, and their products. Longer periods add them up';
COMMENT ON COLUMN fer.satisfaction_summary.former_figures IS 'Figures of the method wilson: happy / (happy + sad) with the interval of Wilson (1927), and their counts; null: another method';
COMMENT ON COLUMN fer.satisfaction_summary.capture_day IS 'Last day of the period; calendar date in the keys of the images';
COMMENT ON COLUMN fer.satisfaction_summary.verdict IS 'satisfied: the interval of the happy rate is above the target. not satisfied: it is below. inconclusive: it contains the target. no target: the facility has none. no verdict: the rates are not corrected (method raw). pending: no rate is published before the day is complete or its lookback has ended. suppressed: too few faces or sessions to publish a rate, or the facility publishes by week';
COMMENT ON COLUMN fer.satisfaction_summary.confidence IS 'Confidence level of the intervals, such as 0.95';
COMMENT ON COLUMN fer.satisfaction_summary.faces IS 'Faces that the rates are based on. A published rate stays until the number of faces changed by 30 and, where sessions are known, their number by 10: then faces_scored differs';
COMMENT ON TABLE fer.satisfaction_summary IS 'One row per facility, period and revision. Rows are never changed: late images, another model version or another target create a new revision. The views satisfaction_daily and satisfaction_period show the newest ones.';
COMMENT ON COLUMN fer.satisfaction_summary.revision IS 'Number of this summary of the period, from 1';
COMMENT ON COLUMN fer.satisfaction_summary.images IS 'All known images of the period: scored, not scored and pending';
COMMENT ON COLUMN fer.satisfaction_summary.is_complete IS 'True: the images were listed after the local day had ended, and each has a final outcome; of a longer period: each of its days is complete';
COMMENT ON COLUMN fer.satisfaction_summary.is_below_expected IS 'True: on an open day that had ended when it was listed, there are fewer images than expected';
COMMENT ON COLUMN fer.cnn.cnn_sha256 IS 'SHA-256 that identifies the CNN; it covers the artifact, the calibration to the votes and the calling rule';
COMMENT ON COLUMN fer.model_version.manifest IS 'Everything that determines a result: CNN, calibration, calling rule, face detector, cropping, limits';
