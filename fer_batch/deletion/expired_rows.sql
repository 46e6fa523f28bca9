-- name: find_summaries
-- The rows that expire, by the day that they are deleted with. A week or four weeks expire with
-- their first day, and a change with the first day of the earlier period. The longest ones begin 27
-- and 55 days before their capture day, which has an index.
SELECT capture_day AS day, count(*) AS rows
FROM fer.satisfaction_summary
WHERE first_day < :before AND capture_day < CAST(:before AS date) + 27
GROUP BY capture_day
UNION ALL
SELECT capture_day, count(*)
FROM fer.satisfaction_change
WHERE capture_day < CAST(:before AS date) + 55
    AND capture_day - (
        CASE comparison WHEN 'week before' THEN 7
            ELSE CASE period WHEN 'day' THEN 1 WHEN 'week' THEN 13 ELSE 55 END END) < :before
GROUP BY capture_day;

-- name: delete_summaries
-- All revisions: an older one would otherwise be shown as the newest.
WITH summary AS (
    DELETE FROM fer.satisfaction_summary
    WHERE capture_day = ANY(:days) AND first_day < :before
    RETURNING 1
),
change AS (
    DELETE FROM fer.satisfaction_change
    WHERE capture_day = ANY(:days)
        AND capture_day - (
            CASE comparison WHEN 'week before' THEN 7
                ELSE CASE period WHEN 'day' THEN 1 WHEN 'week' THEN 13 ELSE 55 END END) < :before
    RETURNING 1
)
SELECT (SELECT count(*) FROM summary) + (SELECT count(*) FROM change);

-- name: find_audits
-- An audit stays as long as a summary that it has corrected.
SELECT coalesce(a.expiry_day, a.last_day) AS day, count(*) AS rows
FROM fer.audit AS a
WHERE coalesce(a.expiry_day, a.last_day) < :before
    AND NOT EXISTS (
        SELECT FROM fer.satisfaction_summary AS s
        WHERE s.audit_id = a.audit_id AND s.first_day >= :before)
GROUP BY coalesce(a.expiry_day, a.last_day);

-- name: delete_audits
-- With their faces, calls and labels. Summaries that expire are deleted before.
WITH audit AS (
    DELETE FROM fer.audit AS a
    WHERE coalesce(a.expiry_day, a.last_day) = ANY(:days)
        AND coalesce(a.expiry_day, a.last_day) < :before
        AND NOT EXISTS (
            SELECT FROM fer.satisfaction_summary AS s WHERE s.audit_id = a.audit_id)
    RETURNING 1
)
SELECT count(*) FROM audit;

-- name: find_findings
-- A finding that is not closed stays, with all its days.
SELECT f.last_day AS day, count(*) + count(DISTINCT f.finding_id) AS rows
FROM fer.finding AS f
JOIN fer.finding_day AS d USING (finding_id)
WHERE f.state = 'closed' AND f.last_day < :before
GROUP BY f.last_day
UNION ALL
SELECT f.last_day, count(*)
FROM fer.finding AS f
WHERE f.state = 'closed'
    AND f.last_day < :before
    AND NOT EXISTS (SELECT FROM fer.finding_day AS d WHERE d.finding_id = f.finding_id)
GROUP BY f.last_day
UNION ALL
SELECT capture_day, count(*)
FROM fer.checked_day
WHERE capture_day < :before
GROUP BY capture_day;

-- name: delete_findings
WITH expired AS (
    SELECT finding_id
    FROM fer.finding
    WHERE state = 'closed' AND last_day = ANY(:days) AND last_day < :before
),
finding_day AS (
    DELETE FROM fer.finding_day WHERE finding_id IN (SELECT finding_id FROM expired)
    RETURNING 1
),
finding AS (
    DELETE FROM fer.finding WHERE finding_id IN (SELECT finding_id FROM expired)
    RETURNING 1
),
checked_day AS (
    DELETE FROM fer.checked_day WHERE capture_day = ANY(:days) AND capture_day < :before
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM finding_day) + (SELECT count(*) FROM finding)
    + (SELECT count(*) FROM checked_day);

-- name: find_runs
SELECT (began_at AT TIME ZONE 'UTC')::date AS day, count(*) AS rows
FROM fer.run
WHERE (began_at AT TIME ZONE 'UTC')::date < :before
GROUP BY (began_at AT TIME ZONE 'UTC')::date
UNION ALL
SELECT capture_day, count(*)
FROM (
    SELECT capture_day FROM fer.batch
    UNION ALL
    SELECT capture_day FROM fer.finished_night
    UNION ALL
    SELECT capture_day FROM fer.digest_delivery
) AS of_day
WHERE capture_day < :before
GROUP BY capture_day;

-- name: delete_runs
WITH run AS (
    DELETE FROM fer.run
    WHERE (began_at AT TIME ZONE 'UTC')::date = ANY(:days)
        AND (began_at AT TIME ZONE 'UTC')::date < :before
    RETURNING 1
),
batch AS (
    DELETE FROM fer.batch WHERE capture_day = ANY(:days) AND capture_day < :before
    RETURNING 1
),
finished_night AS (
    DELETE FROM fer.finished_night WHERE capture_day = ANY(:days) AND capture_day < :before
    RETURNING 1
),
digest_delivery AS (
    DELETE FROM fer.digest_delivery WHERE capture_day = ANY(:days) AND capture_day < :before
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM run) + (SELECT count(*) FROM batch)
    + (SELECT count(*) FROM finished_night) + (SELECT count(*) FROM digest_delivery);
