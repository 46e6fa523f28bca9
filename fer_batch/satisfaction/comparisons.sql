-- name: load_pairs
-- The totals of each period and of an earlier one, if both are published, comparable and current.
WITH newest AS (
    SELECT DISTINCT ON (s.facility_id, s.capture_day)
        s.facility_id, s.capture_day, s.method, s.model_version, s.session_rule, s.audit_id,
        s.totals
    FROM fer.satisfaction_summary AS s
    JOIN unnest(CAST(:facility_ids AS text[]), CAST(:days AS date[]))
        AS asked (facility_id, capture_day)
        ON asked.facility_id = s.facility_id
        AND s.capture_day IN (asked.capture_day, asked.capture_day - CAST(:days_before AS integer))
    WHERE s.period = :period
    ORDER BY s.facility_id, s.capture_day, s.revision DESC
)
SELECT
    later.facility_id, later.capture_day, later.model_version, later.session_rule, later.audit_id,
    later.totals AS later, earlier.totals AS earlier
FROM newest AS later
JOIN newest AS earlier
    ON earlier.facility_id = later.facility_id
    AND earlier.capture_day = later.capture_day - CAST(:days_before AS integer)
    AND earlier.model_version = later.model_version
    AND earlier.method = later.method
    AND earlier.session_rule = later.session_rule
    AND earlier.audit_id IS NOT DISTINCT FROM later.audit_id
JOIN unnest(CAST(:facility_ids AS text[]), CAST(:days AS date[]))
    AS asked (facility_id, capture_day)
    ON asked.facility_id = later.facility_id AND asked.capture_day = later.capture_day
WHERE later.method IN ('raw', 'benchmark', 'local')
ORDER BY later.facility_id, later.capture_day;

-- name: delete_changes
DELETE FROM fer.satisfaction_change AS c
USING unnest(CAST(:facility_ids AS text[]), CAST(:days AS date[]))
    AS asked (facility_id, capture_day)
WHERE c.facility_id = asked.facility_id
    AND c.capture_day = asked.capture_day
    AND c.period = :period
    AND c.comparison = :comparison
RETURNING c.capture_day;

-- name: update_q_values
UPDATE fer.satisfaction_change AS c
SET happy_q_value = q.happy, sad_q_value = q.sad
FROM unnest(
    CAST(:facility_ids AS text[]), CAST(:happy AS double precision[]),
    CAST(:sad AS double precision[])) AS q (facility_id, happy, sad)
WHERE c.facility_id = q.facility_id
    AND c.period = :period
    AND c.capture_day = :capture_day
    AND c.comparison = :comparison
    AND (c.happy_q_value, c.sad_q_value) IS DISTINCT FROM (q.happy, q.sad);
