-- name: load_facilities
SELECT
    facility_id, name, group_name, time_zone, name_template IS NOT NULL AS has_times,
    closed_weekdays, publish_period, permission_valid_until
FROM fer.facility
WHERE is_in_registry
ORDER BY group_name NULLS LAST, name, facility_id;

-- name: load_days
-- The newest summary of each facility and day. Cameras are compared over two weeks only.
SELECT DISTINCT ON (s.facility_id, s.capture_day)
    s.facility_id, s.period, s.first_day, s.capture_day, s.capture_day AS last_day,
    s.verdict, s.method, s.model_version,
    s.happy_rate, s.happy_rate_low, s.happy_rate_high, s.target_rate,
    s.sad_rate, s.sad_rate_low, s.sad_rate_high,
    s.images, s.images_pending, s.not_scored, s.faces, s.faces_needed, s.session_rule,
    s.design_effect, s.is_complete, s.is_below_expected, s.audit_id, s.audit_labels, s.hours,
    CASE WHEN s.capture_day >= CAST(:last_day AS date) - 21 THEN s.cameras END AS cameras
FROM fer.satisfaction_summary AS s
JOIN fer.facility USING (facility_id)
WHERE s.period = 'day'
    AND s.capture_day BETWEEN :first_day AND :last_day
    AND facility.is_in_registry
ORDER BY s.facility_id, s.capture_day, s.revision DESC;

-- name: load_totals
-- The sums of the newest summaries of some facilities and days, for totals of groups.
SELECT DISTINCT ON (s.facility_id) s.facility_id, s.totals
FROM fer.satisfaction_summary AS s
JOIN unnest(CAST(:facility_ids AS text[]), CAST(:days AS date[]))
    AS asked (facility_id, capture_day) USING (facility_id, capture_day)
WHERE s.period = 'day'
ORDER BY s.facility_id, s.revision DESC;

-- name: load_periods
-- The newest summary of each week and four weeks that ended in the last seven days: the shorter
-- period first, as wording.describe_verdict wants them.
SELECT DISTINCT ON (s.facility_id, s.period)
    s.facility_id, s.period, s.first_day, s.capture_day, s.capture_day AS last_day,
    s.verdict, s.method, s.model_version,
    s.happy_rate, s.happy_rate_low, s.happy_rate_high, s.target_rate,
    s.sad_rate, s.sad_rate_low, s.sad_rate_high,
    s.faces, s.faces_needed, s.session_rule, s.design_effect, s.is_complete, s.audit_id,
    s.audit_labels, s.totals
FROM fer.satisfaction_summary AS s
JOIN fer.facility USING (facility_id)
WHERE s.period <> 'day'
    AND s.capture_day BETWEEN CAST(:last_day AS date) - 6 AND :last_day
    AND facility.is_in_registry
ORDER BY s.facility_id, s.period DESC, s.capture_day DESC, s.revision DESC;

-- name: load_earlier
-- The newest summaries of some facilities and periods, for the changes of totals of groups.
SELECT DISTINCT ON (s.facility_id, s.period)
    s.facility_id, s.period, s.capture_day AS last_day,
    s.method, s.model_version, s.session_rule, s.design_effect, s.faces, s.audit_id, s.totals
FROM fer.satisfaction_summary AS s
JOIN unnest(CAST(:facility_ids AS text[]), CAST(:periods AS text[]), CAST(:days AS date[]))
    AS asked (facility_id, period, capture_day) USING (facility_id, period, capture_day)
ORDER BY s.facility_id, s.period, s.revision DESC;

-- name: load_weeks
-- The newest summary of each week of the facilities that publish no days.
SELECT DISTINCT ON (s.facility_id, s.capture_day)
    s.facility_id, s.period, s.first_day, s.capture_day AS last_day,
    s.happy_rate, s.happy_rate_low, s.happy_rate_high, s.faces
FROM fer.satisfaction_summary AS s
JOIN fer.facility USING (facility_id)
WHERE s.period = 'week'
    AND s.capture_day BETWEEN :first_day AND :last_day
    AND facility.is_in_registry
    AND facility.publish_period = 'week'
ORDER BY s.facility_id, s.capture_day, s.revision DESC;

-- name: load_changes
SELECT *
FROM fer.satisfaction_change
WHERE (period = 'day' AND comparison = 'week before'
        OR period = 'week' AND comparison = 'period before')
    AND capture_day BETWEEN :first_day AND :last_day
ORDER BY facility_id, capture_day;

-- name: load_revisions
-- The days whose summary was replaced, newest first, with what it was before.
SELECT *
FROM (
    SELECT
        facility_id, capture_day, revision, created_at,
        happy_rate, happy_rate_low, happy_rate_high, verdict, target_rate, model_version,
        images, images_pending, not_scored, faces, audit_id, reason,
        lag(happy_rate) OVER revisions AS happy_rate_before,
        lag(happy_rate_low) OVER revisions AS happy_rate_before_low,
        lag(happy_rate_high) OVER revisions AS happy_rate_before_high,
        lag(verdict) OVER revisions AS verdict_before,
        lag(target_rate) OVER revisions AS target_rate_before,
        lag(model_version) OVER revisions AS model_version_before,
        lag(audit_id) OVER revisions AS audit_id_before,
        lag(images) OVER revisions AS images_before,
        lag(images_pending) OVER revisions AS images_pending_before,
        lag(not_scored) OVER revisions AS not_scored_before
    FROM fer.satisfaction_summary
    WHERE period = 'day' AND capture_day BETWEEN :first_day AND :last_day
    WINDOW revisions AS (PARTITION BY facility_id, capture_day ORDER BY revision)
) AS revised
WHERE revision > 1
ORDER BY facility_id, capture_day DESC, revision DESC;

-- name: load_batches
-- The days that the last attempt did not list.
SELECT facility_id, capture_day, status, reason
FROM fer.batch
WHERE capture_day BETWEEN :first_day AND :last_day AND status <> 'listed'
ORDER BY facility_id, capture_day DESC;
