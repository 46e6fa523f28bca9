-- name: list_facilities
SELECT facility_id FROM fer.facility_public ORDER BY facility_id;

-- name: list_months
-- The files that the views are exported to, one per facility, period and month, each with a
-- fingerprint of its rows: it changes with every revision, with a withdrawn day, and with the name
-- and group of the facility. Summaries are never changed, so revision and time identify one.
WITH published AS (
    SELECT facility_id, 'day' AS period, capture_day AS last_day, revision, created_at
    FROM fer.satisfaction_daily
    UNION ALL
    SELECT facility_id, period, last_day, revision, created_at
    FROM fer.satisfaction_period
)
SELECT
    p.facility_id,
    p.period,
    date_trunc('month', p.last_day)::date AS month,
    encode(sha256(convert_to(
        jsonb_build_array(
            f.facility_name,
            f.group_name,
            jsonb_agg(jsonb_build_array(p.last_day, p.revision, p.created_at) ORDER BY p.last_day)
        )::text, 'UTF8')), 'hex') AS fingerprint
FROM published AS p
JOIN fer.facility_public AS f USING (facility_id)
WHERE (CAST(:facility_ids AS text[]) IS NULL OR p.facility_id = ANY(:facility_ids))
    AND (CAST(:first_month AS date) IS NULL OR p.last_day >= :first_month)
    AND (CAST(:end_day AS date) IS NULL OR p.last_day < :end_day)
GROUP BY p.facility_id, f.facility_name, f.group_name, p.period, date_trunc('month', p.last_day)
ORDER BY p.facility_id, p.period, month;

-- name: load_rows
-- The rows of one facility, from the first day to the last, both included.
SELECT
    'day' AS period, facility_id, d.facility_name, group_name,
    capture_day AS first_day, capture_day AS last_day,
    verdict, happy_rate, happy_rate_low, happy_rate_high, d.target_rate,
    sad_rate, sad_rate_low, sad_rate_high, neither_rate,
    called_happy_rate, called_happy_rate_low, called_happy_rate_high,
    called_sad_rate, called_sad_rate_low, called_sad_rate_high,
    method, is_complete, is_below_expected, images, images_scored, images_pending, not_scored,
    faces_scored, faces, sessions, sessions_effective, faces_effective, d.design_effect,
    session_rule, benchmark_weight, faces_needed, confidence, d.time_zone, model_version, revision,
    run_id, created_at, audit_id, audit_labels, reason, is_comparable
FROM fer.satisfaction_daily AS d
JOIN fer.facility_public AS f USING (facility_id)
WHERE facility_id = :facility_id AND capture_day BETWEEN :first_day AND :last_day
UNION ALL
SELECT
    period, facility_id, p.facility_name, group_name, first_day, last_day,
    verdict, happy_rate, happy_rate_low, happy_rate_high, p.target_rate,
    sad_rate, sad_rate_low, sad_rate_high, neither_rate,
    called_happy_rate, called_happy_rate_low, called_happy_rate_high,
    called_sad_rate, called_sad_rate_low, called_sad_rate_high,
    method, is_complete, is_below_expected, images, images_scored, images_pending, not_scored,
    faces_scored, faces, sessions, sessions_effective, faces_effective, p.design_effect,
    session_rule, benchmark_weight, faces_needed, confidence, p.time_zone, model_version, revision,
    run_id, created_at, audit_id, audit_labels, reason, is_comparable
FROM fer.satisfaction_period AS p
JOIN fer.facility_public AS f USING (facility_id)
WHERE facility_id = :facility_id AND last_day BETWEEN :first_day AND :last_day
ORDER BY period, last_day;
