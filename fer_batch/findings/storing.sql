-- name: delete_days
-- What the checked days showed and do not show any more.
DELETE FROM fer.finding_day AS d
USING
    fer.finding AS f,
    unnest(CAST(:facility_ids AS text[]), CAST(:days AS date[]))
        AS checked (facility_id, capture_day)
WHERE d.finding_id = f.finding_id
    AND f.facility_id = checked.facility_id
    AND d.capture_day = checked.capture_day
    AND NOT EXISTS (
        SELECT
        FROM unnest(
            CAST(:found_facilities AS text[]), CAST(:found_checks AS text[]),
            CAST(:found_subjects AS text[]), CAST(:found_days AS date[]))
            AS found (facility_id, check_name, subject, capture_day)
        WHERE found.facility_id = f.facility_id
            AND found.check_name = f.check_name
            AND found.subject = f.subject
            AND found.capture_day = d.capture_day);

-- name: record_checked_days
INSERT INTO fer.checked_day (facility_id, capture_day, run_id, checked_at)
SELECT facility_id, capture_day, :run_id, clock_timestamp()
FROM unnest(CAST(:facility_ids AS text[]), CAST(:days AS date[]))
    AS checked (facility_id, capture_day)
ON CONFLICT (facility_id, capture_day)
    DO UPDATE SET run_id = excluded.run_id, checked_at = excluded.checked_at;

-- name: is_checked
SELECT NOT EXISTS (
    SELECT
    FROM unnest(CAST(:facility_ids AS text[]), CAST(:days AS date[]))
        AS batch (facility_id, capture_day)
    LEFT JOIN fer.checked_day AS c USING (facility_id, capture_day)
    WHERE c.run_id IS DISTINCT FROM :run_id);

-- name: list_erased_days
-- The days of which something was erased after the run began: what its checks found there may name
-- an erased key. If it is not known when the run began, any erasure counts.
SELECT DISTINCT e.facility_id, e.capture_day
FROM fer.deletion AS e
WHERE e.kind IN ('image', 'day')
    AND e.facility_id = ANY(:facility_ids)
    AND e.deleted_at >= coalesce(
        (SELECT began_at FROM fer.run WHERE run_id = :run_id), '-infinity');

-- name: load_episodes
-- The findings of some facilities that are not closed, the closed ones about the problems that were
-- found, and the days that show them.
SELECT
    f.finding_id, f.facility_id, f.check_name, f.subject, f.closing_rule, f.first_day, f.last_day,
    f.state = 'closed' AS is_closed,
    f.closed_by IS NOT NULL AS is_closed_by_person,
    (SELECT coalesce(array_agg(d.capture_day ORDER BY d.capture_day), '{}')
        FROM fer.finding_day AS d
        WHERE d.finding_id = f.finding_id) AS days
FROM fer.finding AS f
WHERE f.facility_id = ANY(:facility_ids)
    AND (
        EXISTS (
            SELECT FROM fer.finding AS o
            WHERE o.facility_id = f.facility_id
                AND o.check_name = f.check_name
                AND o.subject = f.subject
                AND o.state <> 'closed')
        OR EXISTS (
            SELECT
            FROM unnest(
                CAST(:found_facilities AS text[]), CAST(:found_checks AS text[]),
                CAST(:found_subjects AS text[])) AS found (facility_id, check_name, subject)
            WHERE found.facility_id = f.facility_id
                AND found.check_name = f.check_name
                AND found.subject = f.subject))
ORDER BY f.finding_id;

-- name: load_evidence
-- What the checked days of some facilities after a day could have shown. A summary that is newer
-- than the check was not seen by it.
SELECT
    c.facility_id,
    c.capture_day,
    coalesce(
        s.is_complete AND s.images > 0 AND s.created_at <= c.checked_at
        AND to_char(c.capture_day, 'dy') <> ALL(f.closed_weekdays), false) AS has_images,
    CASE WHEN s.cameras IS NOT NULL THEN ARRAY(SELECT jsonb_object_keys(s.cameras)) END AS cameras,
    EXISTS (
        SELECT FROM fer.alert_figure(ARRAY[c.facility_id], c.capture_day, c.capture_day,
            :alert_min_faces, :alert_min_sessions) AS g
        WHERE g.period = f.publish_period AND g.created_at <= c.checked_at) AS has_figure,
    ARRAY(
        SELECT x.period
        FROM fer.satisfaction_change AS x
        WHERE x.facility_id = c.facility_id
            AND x.capture_day = c.capture_day
            AND (x.period, x.comparison) IN (('day', 'week before'), ('week', 'period before'))
            AND (SELECT count(*)
                FROM fer.alert_figure(ARRAY[c.facility_id], x.capture_day - 7, x.capture_day,
                    :alert_min_faces, :alert_min_sessions) AS g
                WHERE g.period = x.period
                    AND g.created_at <= c.checked_at
                    AND g.capture_day IN (x.capture_day, x.capture_day - 7)) = 2) AS changes
FROM unnest(CAST(:facility_ids AS text[]), CAST(:days AS date[])) AS asked (facility_id, after_day)
JOIN fer.checked_day AS c
    ON c.facility_id = asked.facility_id
    AND c.capture_day > asked.after_day
LEFT JOIN fer.facility AS f ON f.facility_id = c.facility_id
LEFT JOIN LATERAL (
    SELECT d.is_complete, d.images, d.cameras, d.created_at
    FROM fer.satisfaction_summary AS d
    WHERE d.facility_id = c.facility_id AND d.period = 'day' AND d.capture_day = c.capture_day
    ORDER BY d.revision DESC
    LIMIT 1
) AS s ON true
ORDER BY c.facility_id, c.capture_day;

-- name: open_finding
INSERT INTO fer.finding (
    facility_id, check_name, subject, severity, meaning, closing_rule, first_day, last_day, state,
    opened_at, closed_at, closed_comment)
VALUES (
    :facility_id, :check_name, :subject, :severity, :meaning, :closing_rule, :first_day, :last_day,
    CASE WHEN CAST(:closed_comment AS text) IS NULL THEN 'open' ELSE 'closed' END,
    clock_timestamp(),
    CASE WHEN CAST(:closed_comment AS text) IS NOT NULL THEN clock_timestamp() END,
    :closed_comment)
RETURNING finding_id;

-- name: store_day
INSERT INTO fer.finding_day (finding_id, capture_day, details, run_id, found_at)
VALUES (:finding_id, :capture_day, :details, :run_id, clock_timestamp())
ON CONFLICT (finding_id, capture_day)
    DO UPDATE SET details = excluded.details, run_id = excluded.run_id;

-- name: extend_finding
-- The newest run of a version decides how the check is worded. A closed finding keeps its days.
UPDATE fer.finding
SET first_day = least(first_day, :first_day),
    last_day = greatest(last_day, :last_day),
    severity = :severity,
    meaning = :meaning,
    closing_rule = :closing_rule
WHERE finding_id = :finding_id;

-- name: close_by_run
UPDATE fer.finding
SET state = 'closed', closed_at = clock_timestamp(), closed_comment = :comment
WHERE finding_id = :finding_id AND state <> 'closed';

-- name: close_removed_facilities
UPDATE fer.finding AS f
SET state = 'closed',
    closed_at = clock_timestamp(),
    closed_comment = 'the facility is not in the registry any more'
FROM fer.facility
WHERE facility.facility_id = f.facility_id
    AND NOT facility.is_in_registry
    AND f.state <> 'closed';
