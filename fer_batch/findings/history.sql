-- name: list_findings
-- Findings with the details of their newest day; with :until as they are known of the days up to it.
SELECT
    f.finding_id, f.facility_id, f.check_name, f.subject, f.severity, f.meaning,
    coalesce(newest.details, '') AS details,
    f.state, f.first_day,
    least(f.last_day, coalesce(CAST(:until AS date), f.last_day)) AS last_day,
    (SELECT count(*) FROM fer.finding_day AS d
        WHERE d.finding_id = f.finding_id
            AND (CAST(:until AS date) IS NULL OR d.capture_day <= :until)) AS days,
    f.opened_at, f.acknowledged_at, f.acknowledged_by, f.acknowledged_comment,
    f.closed_at, f.closed_by, f.closed_comment
FROM fer.finding AS f
LEFT JOIN LATERAL (
    SELECT d.details
    FROM fer.finding_day AS d
    WHERE d.finding_id = f.finding_id
        AND (CAST(:until AS date) IS NULL OR d.capture_day <= :until)
    ORDER BY d.capture_day DESC
    LIMIT 1
) AS newest ON true
WHERE (CAST(:facility_ids AS text[]) IS NULL OR f.facility_id = ANY(:facility_ids))
    AND (CAST(:finding_ids AS bigint[]) IS NULL OR f.finding_id = ANY(:finding_ids))
    AND f.state = ANY(:states)
    AND f.severity = ANY(:severities)
    AND (CAST(:until AS date) IS NULL OR f.first_day <= :until)
ORDER BY f.state = 'closed', f.facility_id, f.severity, f.first_day, f.finding_id;

-- name: list_new_findings
-- The open findings of some facilities that a run has found and that were opened since it began;
-- none of a run that is not recorded.
SELECT
    f.facility_id, f.check_name, f.subject, f.severity, f.meaning, f.first_day, f.last_day,
    f.opened_at
FROM fer.finding AS f
JOIN fer.run AS r ON r.run_id = :run_id
WHERE f.facility_id = ANY(CAST(:facility_ids AS text[]))
    AND f.state = 'open'
    AND f.opened_at >= r.began_at
    AND EXISTS (
        SELECT FROM fer.finding_day AS d
        WHERE d.finding_id = f.finding_id AND d.run_id = r.run_id)
ORDER BY f.severity, f.facility_id, f.check_name, f.subject;

-- name: list_unknown_facilities
-- The ids that neither the registry nor a finding ever had.
SELECT asked.facility_id
FROM unnest(CAST(:facility_ids AS text[])) AS asked (facility_id)
WHERE NOT EXISTS (SELECT FROM fer.facility AS f WHERE f.facility_id = asked.facility_id)
    AND NOT EXISTS (SELECT FROM fer.finding AS f WHERE f.facility_id = asked.facility_id)
ORDER BY asked.facility_id;

-- name: acknowledge
-- Again with the same comment: nothing changes.
UPDATE fer.finding
SET state = 'acknowledged',
    acknowledged_at = clock_timestamp(),
    acknowledged_by = :by,
    acknowledged_comment = :comment
WHERE finding_id = ANY(:finding_ids)
    AND (state = 'open' OR state = 'acknowledged' AND acknowledged_comment <> :comment);

-- name: close_by_person
UPDATE fer.finding
SET state = 'closed', closed_at = clock_timestamp(), closed_by = :by, closed_comment = :comment
WHERE finding_id = ANY(:finding_ids) AND state <> 'closed';

-- name: clear_details
-- Details may name the key of any image of the day.
UPDATE fer.finding_day AS d
SET details = ''
FROM fer.finding AS f
WHERE f.finding_id = d.finding_id
    AND f.facility_id = :facility_id
    AND d.capture_day = :capture_day;

-- name: clear_comments
-- A person may have copied a key into a comment. Only while the images are still stored.
UPDATE fer.finding AS f
SET acknowledged_comment = CASE WHEN named.is_acknowledgment THEN '(erased)'
        ELSE f.acknowledged_comment END,
    closed_comment = CASE WHEN named.is_closing THEN '(erased)' ELSE f.closed_comment END
FROM (
    SELECT
        f.finding_id,
        bool_or(position(i.image_key IN f.acknowledged_comment) > 0) AS is_acknowledgment,
        bool_or(position(i.image_key IN f.closed_comment) > 0) AS is_closing
    FROM fer.finding AS f
    CROSS JOIN fer.image AS i
    WHERE f.facility_id = :facility_id
        AND (f.acknowledged_comment IS NOT NULL OR f.closed_by IS NOT NULL)
        AND i.facility_id = :facility_id
        AND i.capture_day = :capture_day
        AND (CAST(:image_key AS text) IS NULL OR i.image_key = :image_key)
    GROUP BY f.finding_id
) AS named
WHERE named.finding_id = f.finding_id AND (named.is_acknowledgment OR named.is_closing);

-- name: forget_days
-- What a day showed, and that it was checked; of one facility or, with null, of all.
WITH deleted AS (
    DELETE FROM fer.finding_day AS d
    USING fer.finding AS f
    WHERE f.finding_id = d.finding_id
        AND (CAST(:facility_id AS text) IS NULL OR f.facility_id = :facility_id)
        AND d.capture_day = :capture_day
)
DELETE FROM fer.checked_day
WHERE (CAST(:facility_id AS text) IS NULL OR facility_id = :facility_id)
    AND capture_day = :capture_day;

-- name: forget_days_before
WITH deleted AS (
    DELETE FROM fer.finding_day WHERE capture_day < :before_day
)
DELETE FROM fer.checked_day WHERE capture_day < :before_day;

-- name: close_without_days
UPDATE fer.finding AS f
SET state = 'closed',
    closed_at = clock_timestamp(),
    closed_comment = 'the rows of its days were deleted'
WHERE f.state <> 'closed'
    AND (CAST(:facility_id AS text) IS NULL OR f.facility_id = :facility_id)
    AND NOT EXISTS (SELECT FROM fer.finding_day AS d WHERE d.finding_id = f.finding_id);

-- name: load_days
-- What the days of a time show, by the newest check of each, for the report.
SELECT
    f.facility_id, d.capture_day, f.check_name, f.severity, f.meaning, f.subject,
    d.details AS finding
FROM fer.finding_day AS d
JOIN fer.finding AS f USING (finding_id)
WHERE d.capture_day BETWEEN :first_day AND :last_day
ORDER BY f.facility_id, d.capture_day DESC, f.severity, f.check_name, d.details;
