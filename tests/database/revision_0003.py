"""A filled database of revision 0003."""

from __future__ import annotations

from datetime import date

DAYS = [date(2026, 3, 1), date(2026, 3, 2)]
# Two days of one facility at revision 0003, with every way in which an outcome ends or continues
# the work on an image; and a published day of another one, with 20 faces of each called class.
FILL = """
CREATE VIEW fer.satisfaction_daily AS
SELECT facility.name AS facility_name, newest.*
FROM (
    SELECT DISTINCT ON (facility_id, capture_day) *
    FROM fer.satisfaction_summary
    ORDER BY facility_id, capture_day, revision DESC
) AS newest
JOIN fer.facility USING (facility_id);

INSERT INTO fer.facility (facility_id, name, time_zone, image_kind, key_template, target_share)
SELECT id, id, 'Europe/Berlin', 'crops', '{facility_id}/{capture_day}/', 0.8
FROM unnest(ARRAY['north-mall', 'outlet']) AS id;

INSERT INTO fer.model_version (model_version, manifest, card)
VALUES (repeat('a', 64), '{"format": 1}', '{"name": "test"}');

INSERT INTO fer.batch (facility_id, capture_day, status, images_listed, bytes_listed, listed_at,
    attempted_at, run_id)
SELECT 'north-mall', day, 'listed', 8, 8, day + 1, day + 1, 'run-1'
FROM unnest(ARRAY['2026-03-01', '2026-03-02']::date[]) AS day;

INSERT INTO fer.image (facility_id, capture_day, image_key, etag, size_bytes, first_seen_at,
    listed_at)
SELECT 'north-mall', day, key || '.jpg', '1', 1, day + 1, day + listed_after
FROM unnest(ARRAY['2026-03-01', '2026-03-02']::date[]) AS day
CROSS JOIN (VALUES ('1_scored', 1), ('2_no_face', 1), ('3_vanished', 1), ('4_killed_worker', 1),
    ('5_changed', 1), ('6_fetch_failed', 1), ('7_vanished_and_back', 3), ('8_new', 1)
) AS image (key, listed_after);

INSERT INTO fer.image_result (facility_id, capture_day, image_key, model_version, etag, outcome,
    p_happy, p_sad, p_neither, is_uncertain, face_count, size_bytes, run_id, scored_at)
SELECT 'north-mall', i.capture_day, i.image_key, repeat('a', 64), '1', o.outcome,
    o.p_happy, o.p_happy / 2, 1 - 1.5 * o.p_happy, o.p_happy < 0.1, o.faces, 1, 'run-1',
    i.capture_day + 2
FROM (VALUES ('1_scored', 'scored', 0.5, 1), ('2_no_face', 'no_face', NULL, 0),
    ('3_vanished', 'vanished', NULL, 0), ('4_killed_worker', 'killed_worker', NULL, 0),
    ('5_changed', 'changed', NULL, 0), ('6_fetch_failed', 'fetch_failed', NULL, 0),
    ('7_vanished_and_back', 'vanished', NULL, 0)
) AS o (key, outcome, p_happy, faces)
JOIN fer.image AS i ON i.image_key = o.key || '.jpg';

INSERT INTO fer.face_result (facility_id, capture_day, image_key, model_version, face_index,
    box_x, box_y, box_width, box_height, p_happy, p_sad, p_neither, is_uncertain)
SELECT facility_id, capture_day, image_key, model_version, 0, 0, 0, 48, 48, p_happy, p_sad,
    p_neither, is_uncertain
FROM fer.image_result WHERE outcome = 'scored' AND facility_id = 'north-mall';

INSERT INTO fer.satisfaction_summary (facility_id, capture_day, revision, model_version,
    target_share, time_zone, images, images_scored, images_pending, not_scored, faces, happy, sad,
    uncertain, neither, interval_method, confidence, verdict, is_complete, is_below_expected,
    run_id, created_at)
SELECT 'north-mall', day, 1, repeat('a', 64), 0.8, 'Europe/Berlin', 8, 1, 4,
    '{"no_face": 1, "vanished": 1, "killed_worker": 1}', 1, 1, 0, 0, 0, 'wilson', 0.95,
    'suppressed', false, false, 'run-1', day + 2
FROM unnest(ARRAY['2026-03-01', '2026-03-02']::date[]) AS day;

INSERT INTO fer.batch (facility_id, capture_day, status, images_listed, bytes_listed, listed_at,
    attempted_at, run_id)
VALUES ('outlet', '2026-03-01', 'listed', 60, 60, '2026-03-02', '2026-03-02', 'run-1');
INSERT INTO fer.image (facility_id, capture_day, image_key, etag, size_bytes, first_seen_at,
    listed_at)
SELECT 'outlet', '2026-03-01', to_char(n, 'FM00'), n, 1, '2026-03-02', '2026-03-02'
FROM generate_series(0, 59) AS n;
INSERT INTO fer.image_result (facility_id, capture_day, image_key, model_version, etag, outcome,
    p_happy, p_sad, p_neither, is_uncertain, face_count, size_bytes, run_id, scored_at)
SELECT 'outlet', '2026-03-01', to_char(n, 'FM00'), repeat('a', 64), n, 'scored',
    p.p_happy, p.p_sad, 1 - p.p_happy - p.p_sad, p.is_uncertain, 1, 1, 'run-1', '2026-03-03'
FROM generate_series(0, 59) AS n
JOIN (VALUES (0, 0.7, 0.2, false), (1, 0.2, 0.7, false), (2, 0.4, 0.3, true))
    AS p (third, p_happy, p_sad, is_uncertain) ON p.third = n % 3;
INSERT INTO fer.face_result (facility_id, capture_day, image_key, model_version, face_index,
    box_x, box_y, box_width, box_height, p_happy, p_sad, p_neither, is_uncertain)
SELECT facility_id, capture_day, image_key, model_version, 0, 0, 0, 48, 48, p_happy, p_sad,
    p_neither, is_uncertain
FROM fer.image_result WHERE facility_id = 'outlet';
INSERT INTO fer.satisfaction_summary (facility_id, capture_day, revision, model_version,
    target_share, time_zone, images, images_scored, images_pending, not_scored, faces, happy, sad,
    uncertain, neither, happy_share, happy_share_low, happy_share_high, uncertain_share,
    neither_share, interval_method, confidence, verdict, is_complete, is_below_expected, run_id,
    created_at)
VALUES ('outlet', '2026-03-01', 1, repeat('a', 64), 0.8, 'Europe/Berlin', 60, 60, 0, '{}', 60,
    20, 20, 20, 3, 0.5, 0.352, 0.648, 0.333333, 0.05, 'wilson', 0.95, 'not satisfied', true, false,
    'run-1', '2026-03-03');

INSERT INTO fer.cnn (cnn_sha256, artefact_sha256, card, artefact)
SELECT hash, hash, jsonb_build_object('name', 'tiny', 'artefact_sha256', hash), 'x'
FROM encode(sha256('x'), 'hex') AS hash;
INSERT INTO fer.cnn_promotion (cnn_sha256, is_rollback, promoted_by, why)
SELECT cnn_sha256, false, 'Ada', 'the first' FROM fer.cnn;
INSERT INTO fer.retention (before_day) VALUES ('2026-01-01');
"""
