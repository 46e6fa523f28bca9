-- The counts of satisfaction_daily.not_scored as rows, which are easier to add up and to chart.
CREATE OR REPLACE VIEW fer.not_scored_daily AS
SELECT
    daily.facility_id,
    daily.facility_name,
    daily.capture_day,
    counted.outcome,
    counted.images::bigint AS images,
    daily.images AS all_images
FROM fer.satisfaction_daily AS daily
CROSS JOIN LATERAL jsonb_each_text(daily.not_scored) AS counted (outcome, images);

COMMENT ON VIEW fer.not_scored_daily IS 'Why images were not scored: one row per facility, capture day and outcome, of the newest summary. A day without such images has no row.';
COMMENT ON COLUMN fer.not_scored_daily.facility_id IS 'Facility, see table facility';
COMMENT ON COLUMN fer.not_scored_daily.facility_name IS 'Display name of the facility';
COMMENT ON COLUMN fer.not_scored_daily.capture_day IS 'Calendar date in the keys of the images';
COMMENT ON COLUMN fer.not_scored_daily.outcome IS 'Outcome of the images, such as no_face; the comment of image_result.outcome explains the values. erased: deleted later on request';
COMMENT ON COLUMN fer.not_scored_daily.images IS 'Images of the day with this outcome';
COMMENT ON COLUMN fer.not_scored_daily.all_images IS 'All known images of the day, for comparison';
