-- Three years of a facility, until 2026-11-28, copied from its only day with a summary, 2026-11-29,
-- and from an audit. Weeks and four weeks end on Sundays.
CREATE TEMPORARY TABLE day AS
SELECT d::date AS day, extract(isodow FROM d) = 7 AS is_sunday
FROM generate_series('2023-10-27'::date, '2026-11-28'::date, '1 day') AS d;

INSERT INTO fer.satisfaction_summary
SELECT (jsonb_populate_record(s, jsonb_build_object(
    'period', p.period, 'revision', r, 'capture_day', day, 'first_day', day - p.days + 1,
    'hours', NULL, 'cameras', NULL))).*
FROM fer.satisfaction_summary AS s,
    (VALUES ('day', 1), ('week', 7), ('four weeks', 28)) AS p (period, days),
    generate_series(1, 2) AS r,
    day
WHERE p.period = 'day' OR is_sunday;

INSERT INTO fer.satisfaction_change
SELECT 'north-mall', c.period, day, c.comparison, 0, -1, 1, 1, 1, 0, -1, 1, 1, 1, 'run-1'
FROM (VALUES ('day', 'period before'), ('day', 'week before'), ('week', 'period before'),
        ('four weeks', 'period before')) AS c (period, comparison),
    day
WHERE c.period = 'day' OR is_sunday;

INSERT INTO fer.batch
SELECT (jsonb_populate_record(b, jsonb_build_object('capture_day', day))).* FROM fer.batch AS b, day;

INSERT INTO fer.run (run_id, began_at)
SELECT 'night after ' || day, day + interval '27 hours' FROM day;

INSERT INTO fer.finished_night (facility_id, capture_day, run_id)
SELECT facility_id, capture_day, run_id FROM fer.batch;

INSERT INTO fer.digest_delivery (subscription, recipient_sha256, capture_day, run_id)
SELECT 'all', sha256('ada'), capture_day, run_id FROM fer.batch;

INSERT INTO fer.checked_day (facility_id, capture_day, run_id)
SELECT facility_id, capture_day, run_id FROM fer.batch;

-- A closed finding a day, and one that has been open since 2025-06-01.
WITH finding AS (
    INSERT INTO fer.finding (facility_id, check_name, subject, severity, meaning, closing_rule,
        first_day, last_day, state, closed_at, closed_comment)
    SELECT 'north-mall', 'frozen_camera', '', 'warning', 'frozen', 'later day', day, day,
        'closed', now(), 'over'
    FROM day
    RETURNING finding_id, last_day
)
INSERT INTO fer.finding_day (finding_id, capture_day, details, run_id)
SELECT finding_id, last_day, 'till', 'run-1' FROM finding;

WITH finding AS (
    INSERT INTO fer.finding (facility_id, check_name, subject, severity, meaning, closing_rule,
        first_day, last_day)
    VALUES ('north-mall', 'no_permission', '', 'error', 'expired', 'later day', '2025-06-01',
        '2026-11-28')
    RETURNING finding_id
)
INSERT INTO fer.finding_day (finding_id, capture_day, details, run_id)
SELECT finding_id, day, '', 'run-1'
FROM finding, unnest(ARRAY['2025-06-01', '2026-11-28']::date[]) AS day;

INSERT INTO fer.audit (facility_id, model_version, first_day, last_day, seed, faces_in_window,
    faces_drawn, finished_at, finished_by, start_day, expiry_day)
SELECT 'north-mall', model_version, expiry_day - 200, expiry_day - 190, 1, 10, 1, now(), 'ada',
    expiry_day - 180, expiry_day
FROM fer.model_version, unnest(ARRAY['2023-11-30', '2023-12-01']::date[]) AS expiry_day;

INSERT INTO fer.image
SELECT (jsonb_populate_record(i, jsonb_build_object('capture_day', p.capture_day))).*
FROM fer.image AS i, partition_day AS p;

INSERT INTO fer.image_result
SELECT (jsonb_populate_record(r, jsonb_build_object('capture_day', p.capture_day))).*
FROM fer.image_result AS r, partition_day AS p;

INSERT INTO fer.face_result
SELECT (jsonb_populate_record(f, jsonb_build_object('capture_day', p.capture_day))).*
FROM fer.face_result AS f, partition_day AS p;
