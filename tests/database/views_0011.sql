-- The views as they were created at migration 0011, without their comments.

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
    newest.images_scored,
    newest.images_pending,
    newest.not_scored,
    newest.faces_scored,
    newest.faces,
    newest.sessions,
    newest.sessions_effective,
    newest.faces_effective,
    newest.design_effect,
    newest.session_rule,
    newest.benchmark_weight,
    newest.faces_needed,
    newest.confidence,
    newest.time_zone,
    newest.model_version,
    newest.revision,
    newest.run_id,
    newest.created_at
FROM (
    SELECT DISTINCT ON (facility_id, capture_day) *
    FROM fer.satisfaction_summary
    WHERE period = 'day'
    ORDER BY facility_id, capture_day, revision DESC
) AS newest
JOIN fer.facility USING (facility_id);

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
    newest.images_scored,
    newest.images_pending,
    newest.not_scored,
    newest.faces_scored,
    newest.faces,
    newest.sessions,
    newest.sessions_effective,
    newest.faces_effective,
    newest.design_effect,
    newest.session_rule,
    newest.benchmark_weight,
    newest.faces_needed,
    newest.confidence,
    newest.time_zone,
    newest.model_version,
    newest.revision,
    newest.run_id,
    newest.created_at
FROM (
    SELECT DISTINCT ON (facility_id, period, capture_day) *
    FROM fer.satisfaction_summary
    WHERE period <> 'day'
    ORDER BY facility_id, period, capture_day, revision DESC
) AS newest
JOIN fer.facility USING (facility_id);

CREATE OR REPLACE VIEW fer.newest_complete_day AS
SELECT DISTINCT ON (daily.facility_id)
    daily.facility_id,
    daily.facility_name,
    daily.capture_day,
    daily.is_complete
FROM fer.satisfaction_daily AS daily
JOIN fer.facility USING (facility_id)
WHERE facility.is_in_registry
    AND daily.capture_day < (now() AT TIME ZONE facility.time_zone)::date
ORDER BY daily.facility_id, daily.is_complete DESC, daily.capture_day DESC;

CREATE OR REPLACE VIEW fer.happy_by_hour AS
WITH recent AS (
    SELECT
        facility_id,
        facility_name,
        capture_day - extract(ISODOW FROM capture_day)::integer % 7 AS last_day -- a Sunday
    FROM fer.newest_complete_day
    WHERE is_complete
),
newest AS (
    SELECT DISTINCT ON (s.facility_id, s.capture_day)
        s.facility_id, s.capture_day, s.method, s.model_version, s.hours
    FROM recent
    JOIN fer.satisfaction_summary AS s USING (facility_id)
    WHERE s.period = 'day' AND s.capture_day BETWEEN recent.last_day - 27 AND recent.last_day
    ORDER BY s.facility_id, s.capture_day, s.revision DESC
),
published AS (
    SELECT
        *,
        first_value(model_version) OVER (PARTITION BY facility_id ORDER BY capture_day DESC)
            AS newest_version
    FROM newest
    WHERE method IN ('raw', 'benchmark', 'local')
),
used AS (
    SELECT *
    FROM published
    WHERE model_version = newest_version AND hours <> '{}'
),
cell AS (
    SELECT
        used.facility_id,
        extract(ISODOW FROM used.capture_day)::integer AS weekday,
        counted.hour::integer AS hour,
        sum((counted.counts ->> 0)::bigint) AS happy,
        sum((counted.counts ->> 0)::bigint + (counted.counts ->> 1)::bigint
            + (counted.counts ->> 2)::bigint) AS faces,
        sum((counted.counts ->> 3)::bigint) AS sessions
    FROM used
    CROSS JOIN LATERAL jsonb_each(used.hours) AS counted (hour, counts)
    WHERE used.facility_id IN (
        SELECT facility_id
        FROM used
        GROUP BY facility_id
        HAVING count(DISTINCT date_trunc('week', capture_day)) = 4)
    GROUP BY used.facility_id, weekday, counted.hour
),
sized AS (
    SELECT *, faces < 30 OR sessions < 10 AS is_small
    FROM cell
),
hidden AS (
    SELECT
        *,
        is_small
        OR sum(faces) OVER before < 30
        OR sum(sessions) OVER before < CASE count(*) OVER before WHEN 1 THEN 10 ELSE 20 END
            AS is_suppressed
    FROM sized
    WINDOW before AS (
        PARTITION BY facility_id, weekday
        ORDER BY is_small DESC, faces, hour
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT
    recent.facility_id,
    recent.facility_name,
    recent.last_day - 27 AS first_day,
    recent.last_day,
    hidden.weekday,
    hidden.hour,
    CASE WHEN NOT coalesce(hidden.is_suppressed, false)
        THEN round(100.0 * hidden.happy / hidden.faces)::integer END AS called_happy_percent,
    coalesce(hidden.is_suppressed, false) AS is_suppressed
FROM hidden
JOIN recent USING (facility_id);

CREATE OR REPLACE VIEW fer.camera_daily AS
SELECT
    newest.facility_id,
    facility.name AS facility_name,
    newest.capture_day,
    counted.camera,
    counted.images::bigint AS images
FROM (
    SELECT DISTINCT ON (facility_id, capture_day) facility_id, capture_day, cameras
    FROM fer.satisfaction_summary
    WHERE period = 'day'
    ORDER BY facility_id, capture_day, revision DESC
) AS newest
JOIN fer.facility USING (facility_id)
CROSS JOIN LATERAL jsonb_each_text(newest.cameras) AS counted (camera, images);
