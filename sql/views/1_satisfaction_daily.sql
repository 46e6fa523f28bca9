-- The newest revision of the summary of each facility and capture day. Every upgrade runs this file;
-- CREATE OR REPLACE keeps the grants on the view. A migration that removes or reorders columns must
-- drop the view first, because CREATE OR REPLACE cannot do that.
CREATE OR REPLACE VIEW fer.satisfaction_daily AS
SELECT
    newest.facility_id,
    facility.name AS facility_name,
    newest.capture_day,
    newest.verdict,
    newest.happy_share,
    newest.happy_share_low,
    newest.happy_share_high,
    newest.target_share,
    newest.uncertain_share,
    newest.neither_share,
    newest.is_complete,
    newest.is_below_expected,
    newest.images,
    newest.images_scored,
    newest.images_pending,
    newest.not_scored,
    newest.faces,
    CASE WHEN newest.verdict <> 'suppressed' THEN newest.happy END AS happy,
    CASE WHEN newest.verdict <> 'suppressed' THEN newest.sad END AS sad,
    CASE WHEN newest.verdict <> 'suppressed' THEN newest.uncertain END AS uncertain,
    CASE WHEN newest.verdict <> 'suppressed' THEN newest.neither END AS neither,
    newest.interval_method,
    newest.confidence,
    newest.time_zone,
    newest.model_version,
    newest.revision,
    newest.run_id,
    newest.created_at
FROM (
    SELECT DISTINCT ON (facility_id, capture_day) *
    FROM fer.satisfaction_summary
    ORDER BY facility_id, capture_day, revision DESC
) AS newest
JOIN fer.facility USING (facility_id);

COMMENT ON VIEW fer.satisfaction_daily IS 'Start here. One row per facility and capture day: the newest summary, whatever its model version.';
COMMENT ON COLUMN fer.satisfaction_daily.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.satisfaction_daily.facility_name IS 'Display name of the facility';
COMMENT ON COLUMN fer.satisfaction_daily.capture_day IS 'Calendar date in the keys of the images';
COMMENT ON COLUMN fer.satisfaction_daily.verdict IS 'satisfied: the interval is above the target. not satisfied: the interval is below it. inconclusive: the target is inside the interval. suppressed: fewer than 30 happy and sad faces';
COMMENT ON COLUMN fer.satisfaction_daily.happy_share IS 'happy / (happy + sad), 0 to 1; null: suppressed. Never quote it without its interval';
COMMENT ON COLUMN fer.satisfaction_daily.happy_share_low IS 'Lower end of the interval of the happy share, 0 to 1; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.happy_share_high IS 'Upper end of the interval of the happy share, 0 to 1; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.target_share IS 'Target of the happy share, 0 to 1, that the verdict compares with';
COMMENT ON COLUMN fer.satisfaction_daily.uncertain_share IS 'uncertain / faces, 0 to 1: the share of faces that the happy share does not count; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.neither_share IS 'neither / faces, 0 to 1: the share of faces with neither a happy nor a sad expression; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.is_complete IS 'True: the images were listed after the local day had ended, and each has a final outcome. False: the numbers may still change';
COMMENT ON COLUMN fer.satisfaction_daily.is_below_expected IS 'True: an open day with fewer images than expected; check the cameras first';
COMMENT ON COLUMN fer.satisfaction_daily.images IS 'All known images of the day: scored, not scored and pending';
COMMENT ON COLUMN fer.satisfaction_daily.images_scored IS 'Images in which faces were scored';
COMMENT ON COLUMN fer.satisfaction_daily.images_pending IS 'Images without a final outcome; the next run retries them';
COMMENT ON COLUMN fer.satisfaction_daily.not_scored IS 'Images with a final outcome other than scored, counted by outcome. As rows: view not_scored_daily';
COMMENT ON COLUMN fer.satisfaction_daily.faces IS 'Faces in the scored images: happy + sad + uncertain';
COMMENT ON COLUMN fer.satisfaction_daily.happy IS 'Faces that are Happy and not uncertain; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.sad IS 'Faces that are Sad and not uncertain; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.uncertain IS 'Faces that are uncertain and therefore not counted in the happy share; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.neither IS 'Faces, uncertain or not, whose largest probability is p_neither; null: suppressed';
COMMENT ON COLUMN fer.satisfaction_daily.interval_method IS 'Method of the interval. wilson: score interval of Wilson (1927), which assumes that faces are independent';
COMMENT ON COLUMN fer.satisfaction_daily.confidence IS 'Confidence level of the interval, such as 0.95';
COMMENT ON COLUMN fer.satisfaction_daily.time_zone IS 'IANA time zone that determined when the day ended';
COMMENT ON COLUMN fer.satisfaction_daily.model_version IS 'Model version whose results were counted, see table model_version';
COMMENT ON COLUMN fer.satisfaction_daily.revision IS 'Number of this summary of the day, from 1; older ones are in table satisfaction_summary';
COMMENT ON COLUMN fer.satisfaction_daily.run_id IS 'Run that wrote this summary';
COMMENT ON COLUMN fer.satisfaction_daily.created_at IS 'When this summary was written';
